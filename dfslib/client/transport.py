"""Requests to one server: a pooled `requests` session, errors as OSError, and what may be repeated.

URLs reach the server byte for byte. `requests` and urllib3 drop `..` and rewrite percent-encoding when they
prepare a URL, so requests are prepared here, and only sent by the session. Proxies, `.netrc` and certificates
named in the environment are not used: `http_proxy` would send requests for localhost and for the
cluster's own names astray, and looking costs 0.2 ms a call.

A request that changes something gets an id, the same one whenever it is sent again, by which the namenode does
it once; past the time in which the namenode knows it, it is not sent again.

Safe to use from several threads. Does not know any operation of the file system.
"""

from __future__ import annotations

import enum
import errno
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.cookies import RequestsCookieJar
from requests.hooks import default_hooks
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict

from dfslib import errors
from dfslib.client.bodies import Body, SourceFailed
from dfslib.client.connections import new_session
from dfslib.client.retrying import Retries, Timing
from dfslib.errors import DfsError
from dfslib.wire import messages, routes

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 5.0
"""For one attempt. A host that drops packets is no reason to spend all of the time on it."""
LONG_ANSWER_S: Final = 600.0
"""For answers that take the server its time: fsck reads all of the metadata."""
CHANGE_ANSWER_S: Final = 240.0
"""For changes that take the server its time, syncing a large file to disks: short beside REMEMBERED_S."""
REMEMBERED_S: Final = 540.0
"""The namenode knows a request for 600 s from when it was done; a repetition has a minute to arrive."""

_TELLING: Final = frozenset({errno.EIO, errno.EINVAL, errno.ESTALE, errno.EBADMSG})
"""Errnos whose own text says nothing; the server's message is shown in its place."""


class Repeat(enum.Enum):
    """What may be done when it is not known whether a request took effect."""

    ALWAYS = enum.auto()
    """Send it again: twice has the effect of once."""
    ONCE = enum.auto()
    """Send it again with the id that it had: the namenode does it once and answers alike."""
    UNCHANGED = enum.auto()
    """Only where the failure guarantees that nothing has changed."""


@dataclass(frozen=True)
class Request:
    """One request. `filename`s are what errors name; with `own_words` they say what the server said. An answer
    whose code is in `done_codes`, after an answer that was lost, means that the lost one had been a success."""

    method: str
    target: str
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: Repeat = Repeat.ALWAYS
    filename: str | bytes | None = None
    filename2: str | bytes | None = None
    own_words: bool = False
    done_codes: frozenset[str] = frozenset()
    answer_timeout_s: float | None = None


@dataclass(frozen=True)
class Answer:
    """A whole answer with a status below 400."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class NoAnswer(Exception):
    """No answer came. `never_sent`: the server has certainly not seen the request. `server` is its URL."""

    def __init__(self, url: str, reason: str, *, never_sent: bool, number: int) -> None:
        parts = urlsplit(url)
        self.server = f"{parts.scheme}://{parts.netloc}/"
        self.reason, self.never_sent, self.number = reason, never_sent, number
        super().__init__(f"{self.server}: {reason}")

    def as_os_error(self) -> ConnectionError:
        if self.never_sent and self.number == errno.ECONNREFUSED:
            return ConnectionRefusedError(errno.ECONNREFUSED, f"cannot reach {self.server}: {self.reason}")
        what = "cannot reach" if self.never_sent else "no answer from"
        return ConnectionError(self.number, f"{what} {self.server}: {self.reason}")


def os_error(
    error: DfsError,
    filename: str | bytes | None,
    filename2: str | bytes | None = None,
    *,
    own_words: bool = False,
) -> OSError:
    """The error that Python raises for the same failure on a local file; with `own_words` it says what the server
    said."""
    text = error.message if own_words or error.errno in _TELLING else os.strerror(error.errno)
    if filename is None:
        return OSError(error.errno, text)
    return OSError(error.errno, text, filename, None, filename2)


def failure_of(error: Exception, url: str) -> NoAnswer:
    """What an exception of requests or urllib3 means for the request."""
    cause: object = error.args[0] if error.args else error
    if isinstance(cause, urllib3.exceptions.MaxRetryError):
        cause = cause.reason
    never_sent = isinstance(error, requests.ConnectTimeout) or isinstance(
        cause, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    )
    inner = _innermost(cause if isinstance(cause, BaseException) else error)
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)) or isinstance(inner, TimeoutError):
        return NoAnswer(url, "timed out", never_sent=never_sent, number=errno.ETIMEDOUT)
    if isinstance(inner, OSError) and inner.strerror:
        number = inner.errno if isinstance(inner.errno, int) and inner.errno > 0 else errno.EHOSTUNREACH
        return NoAnswer(url, inner.strerror, never_sent=never_sent, number=number)
    return NoAnswer(url, str(inner) or type(inner).__name__, never_sent=never_sent, number=errno.ECONNRESET)


def _innermost(error: BaseException) -> BaseException:
    """The exception at the bottom of a chain of causes, arguments and contexts."""
    for _ in range(10):
        below = error.__cause__ or error.__context__
        if below is None:
            below = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if below is None:
            break
        error = below
    return error


class _Lost:
    """The answers to one request that did not come, and what they allow."""

    def __init__(self, request: Request, clock: Callable[[], float], answer_timeout_s: float) -> None:
        self._repeat = request.repeat
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s
        self._remembered_until: float | None = None
        self.any = False

    def may_repeat(self, failure: NoAnswer) -> bool:
        """Whether the request may be sent again after `failure`, and after those before it."""
        if not failure.never_sent:
            self.any = True
            if self._remembered_until is None:
                # The request may have been done as soon as it was there, and its answer waited for since then.
                self._remembered_until = self._clock() - self._answer_timeout_s + REMEMBERED_S
        if self._repeat is Repeat.ONCE and self._remembered_until is not None:
            return self._clock() < self._remembered_until
        return failure.never_sent or self._repeat is Repeat.ALWAYS


class Transport:
    """Sends requests to the server at `url`. Raises ValueError where that is no http or https URL.

    `timeout_s`: how long a call goes on trying, counted from its first failure; also how long one answer,
    or one piece of a body, is waited for.
    """

    def __init__(self, url: str, timeout_s: float = 30.0, timing: Timing | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not a URL such as http://host:8180/")
        self.url = url.rstrip("/") + "/"
        self.timeout_s = timeout_s
        self._timing = timing or Timing()
        self._session = new_session()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type[Transport], tuple[str, float, Timing | None]]:
        """Pickled without connections: a copy opens its own."""
        return type(self), (self.url, self.timeout_s, None if self._timing == Timing() else self._timing)

    def close(self) -> None:
        """Close the connections that wait in the pool."""
        self._session.close()

    def renew_connections(self) -> None:
        """Open new connections from now on. Those in use are closed when their requests have ended."""
        self._session = new_session()

    def retries(self) -> Retries:
        return Retries(self.timeout_s, self._timing)

    def send(self, request: Request) -> Answer:
        """The answer to `request`, repeated as it allows.

        Raises the OSError that the answer stands for, ConnectionError where there is none in time, and
        whatever reading the body's source raised.
        """
        retries = self.retries()
        answer_timeout_s = request.answer_timeout_s or self.timeout_s
        if request.repeat is Repeat.ONCE:
            answer_timeout_s = min(answer_timeout_s, CHANGE_ANSWER_S)
            named = {**request.headers, routes.HEADER_REQUEST_ID: uuid.uuid4().hex}
            request = replace(request, headers=named, answer_timeout_s=answer_timeout_s)
        lost = _Lost(request, self._timing.clock, answer_timeout_s)
        while True:
            error: OSError
            try:
                return self.attempt(request)
            except NoAnswer as failure:
                again = lost.may_repeat(failure)
                reason, error = str(failure), failure.as_os_error()
            except DfsError as refusal:
                if lost.any and refusal.code in request.done_codes:
                    return Answer(204, {}, b"")
                again = refusal.retryable
                reason = f"{self.url}: {refusal.message}"
                error = os_error(refusal, request.filename, request.filename2, own_words=request.own_words)
                error.__cause__ = refusal
            if not again or (request.body and not request.body.rewind()) or not retries.pause(reason):
                try:
                    raise error
                finally:
                    del error  # it refers to this frame, and so, else, to itself: kept with all of its callers

    def decode(self, answer: Answer, kind: type[T]) -> T:
        """The message in an answer. Raises OSError(EIO) where it is none: something else answers there."""
        try:
            return messages.decode(answer.data, kind)
        except DfsError as error:
            raise OSError(errno.EIO, f"{self.url} did not answer as a namenode does: {error}") from error

    def attempt(self, request: Request) -> Answer:
        """Send once. Raises NoAnswer, or the DfsError in the answer."""
        url = self.url[:-1] + request.target
        response = self.stream(request.method, url, request.headers, request.body, request.answer_timeout_s)
        data = read_all(response, url)
        if response.status_code >= 400:
            raise error_of(response, data, url)
        return Answer(response.status_code, response.headers, data)

    def stream(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        answer_timeout_s: float | None = None,
    ) -> requests.Response:
        """Send once to `url`, on this server or another, and give the answer with its body unread.

        Redirects are not followed. Raises NoAnswer.
        """
        if self._process != os.getpid():  # after a fork the parent reads from the same connections
            self._process = os.getpid()
            self.renew_connections()
        prepared = _prepare(method, url, headers, body)
        timeout = (min(CONNECT_TIMEOUT_S, self.timeout_s), answer_timeout_s or self.timeout_s)
        try:
            return self._session.send(prepared, stream=True, timeout=timeout, allow_redirects=False, proxies={})
        except SourceFailed as failure:
            raise failure.error from failure
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise failure_of(error, url) from error


def _prepare(method: str, url: str, headers: Mapping[str, str], body: Body | None) -> PreparedRequest:
    prepared = PreparedRequest()
    prepared.method, prepared.url = method, url
    prepared.headers = CaseInsensitiveDict(headers)
    prepared.headers["User-Agent"] = "dfs-client"
    prepared.headers["Accept-Encoding"] = "identity"
    prepared.hooks = default_hooks()
    vars(prepared)["_cookies"] = RequestsCookieJar()  # Session.send expects what prepare_cookies would have left
    if body is not None and body.size is not None:
        prepared.headers["Content-Length"] = str(body.size)
    elif body is None and method in ("PUT", "POST"):
        prepared.headers["Content-Length"] = "0"
    if body is not None and body.size != 0:
        prepared.body = body  # type: ignore[assignment]  # urllib3 sends any iterable of bytes
    return prepared


def read_all(response: requests.Response, url: str) -> bytes:
    """The rest of an answer's body, as it was sent. Raises NoAnswer where it breaks off."""
    try:
        return bytes(response.raw.read(decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise failure_of(error, url) from error


def error_of(response: requests.Response, data: bytes, url: str) -> DfsError | NoAnswer:
    """The error that an answer stands for.

    An error page which is not a DFS server's (a proxy's 502) says nothing about whether the request
    arrived, and counts as no answer.
    """
    code = response.headers.get(routes.HEADER_ERROR)
    if code and not data:
        return errors.from_code(code, "")
    if response.status_code in (502, 503, 504) and "json" not in response.headers.get("Content-Type", ""):
        return NoAnswer(url, f"HTTP status {response.status_code}", never_sent=False, number=errno.ECONNRESET)
    return messages.decode_error(data, response.status_code)
