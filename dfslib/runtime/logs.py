"""Logs for operators: one line an event on standard error, `time level logger message key=value ...`."""

from __future__ import annotations

import logging
import sys
import time


def configure_logging(level: str) -> None:
    """Log to standard error from `level` (DEBUG, INFO, WARNING, ERROR) on, times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


def event(what: str, /, **values: object) -> str:
    """One event as `what key=value ...`; values with spaces, quotes or control characters are quoted."""
    parts = [what]
    for key, value in values.items():
        text = str(value)
        if not text or not text.isprintable() or any(c in text for c in " \"'="):
            text = ascii(text)
        parts.append(f"{key}={text}")
    return " ".join(parts)
