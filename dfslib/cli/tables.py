"""Columns of text. Knows how wide a text is on a terminal; draws no lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def align(rows: Sequence[Sequence[str]], right: str) -> list[str]:
    """Rows as lines of aligned columns, one space apart. `right` has an r for each column that is right-aligned."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max(width(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            gap = " " * (widths[i] - width(cell))
            cells.append(gap + cell if right[i : i + 1] == "r" else cell + gap)
        lines.append(" ".join(cells).rstrip(" ") if right[len(row) - 1 : len(row)] != "r" else " ".join(cells))
    return lines


def in_columns(cells: Sequence[str], line_width: int) -> list[str]:
    """Cells down and then across, in as many columns as fit, two spaces apart: as ls shows names."""
    if not cells:
        return []
    sizes = [width(cell) for cell in cells]
    for rows in range(1, len(cells) + 1):
        starts = range(0, len(cells), rows)
        widths = [max(sizes[start : start + rows]) for start in starts]
        if sum(widths) + 2 * (len(widths) - 1) <= line_width or rows == len(cells):
            break
    lines = []
    for row in range(rows):
        line = ""
        for column, start in enumerate(starts):
            if start + row < min(start + rows, len(cells)):
                at = start + row
                line += cells[at] + " " * (widths[column] - sizes[at] + 2)
        lines.append(line.rstrip(" "))
    return lines
