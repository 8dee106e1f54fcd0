"""Plain-text tables for people: aligned columns, numbers to the right. Programs read JSON instead."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | float | int | None


def format_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, decimals: int = 4) -> str:
    """`rows` under `header` as lines of aligned text. Columns of numbers are aligned to the right, None prints as a dash."""
    cells = [[_text(cell, decimals) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[column]) for row in cells)]) for column, name in enumerate(header)]
    right = [bool(rows) and all(not isinstance(row[column], str) for row in rows) for column in range(len(header))]

    def line(texts: Sequence[str]) -> str:
        padded = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *(line(row) for row in cells)])


def _text(cell: Cell, decimals: int) -> str:
    if cell is None:
        return "-"
    return f"{cell:.{decimals}f}" if isinstance(cell, float) else str(cell)
