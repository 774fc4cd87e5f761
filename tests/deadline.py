"""How long tests wait for what is bound to happen."""

from __future__ import annotations

from typing import Final

DEADLINE_S: Final = 180.0
"""For one step of a test. The slowest machine that ran them, half as fast as a usual one, with twelve processes that
want its two processors, needs less than a minute for any step. Tests go on as soon as it has happened."""
