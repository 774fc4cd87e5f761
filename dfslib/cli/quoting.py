"""Names as a terminal may show them: quoted as GNU ls does, ready to be pasted into a shell."""

from __future__ import annotations

import itertools
import os
import string
from typing import Final

_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "%+,-./:@_{}]~#")
_ESCAPES: Final = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}


def is_printable(name: str) -> bool:
    """Whether a terminal shows `name` as it is, on one line."""
    return name.isprintable()


def quote(name: str) -> str:
    """`name`, in quotes where a shell or a terminal would need them: 'a b', 'a'$'\\n''b', "it's"."""
    plain = all(c in _PLAIN or (ord(c) > 127 and c.isprintable()) for c in name)
    if plain and name not in ("", "{", "}") and name[0] not in "~#":
        return name
    if not is_printable(name):
        return _quote_unprintable(name)
    if "'" in name and not set(name) & set('"$`\\!'):
        return f'"{name}"'
    return "'" + name.replace("'", "'\\''") + "'"


def _quote_unprintable(name: str) -> str:
    """Printable runs in '...', the others' bytes in $'...'."""
    runs = []
    for printable, run in itertools.groupby(name, str.isprintable):
        if printable:
            runs.append("'" + "".join(run).replace("'", "'\\''") + "'")
        else:
            text = "".join(_ESCAPES.get(byte) or f"\\{byte:03o}" for byte in os.fsencode("".join(run)))
            runs.append(("" if runs else "''") + f"$'{text}'")
    return "".join(runs)
