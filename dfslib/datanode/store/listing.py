"""The blocks of a volume page by page, while blocks come and go."""

from __future__ import annotations

import bisect
from array import array


class Listing:
    """Pages of block ids. `found` is 8 bytes a block, so ten million are no burden; `recent` are those that
    came since."""

    def __init__(self) -> None:
        self.found: array[int] = array("Q")
        self.recent: set[int] = set()

    def page(self, after: int, limit: int) -> tuple[list[int], bool]:
        """The next `limit` ids above `after` (and newer ones among them), and whether these are the last."""
        first = bisect.bisect_right(self.found, after)
        ids = self.found[first : first + limit].tolist()
        last = first + limit >= len(self.found)
        newer = {block for block in set(self.recent) if block > after and (last or block <= ids[-1])}
        return sorted(newer.union(ids)), last
