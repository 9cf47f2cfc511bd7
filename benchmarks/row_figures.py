"""The table in docs/scale.md of the work on the rows of a manifest: read, extended, and used for estimates."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence

from page_parts import read_part, replace_part

ROWS_BEGIN, ROWS_END = "<!-- begin: written by benchmarks/manifest_rows.py --write -->", "<!-- end of the rows -->"
RowWork = tuple[str, str]
"""A step, and a kind of its work on rows."""

RowFigures = Mapping[RowWork, Mapping[int, tuple[float, float]]]
"""Core seconds, and memory of the process in MB, by work and number of rows."""


def read_rows(page: str) -> dict[RowWork, dict[int, tuple[float, float]]]:
    """Read what the work on the rows of a manifest took.

    Args:
        page: text of docs/scale.md.

    Returns:
        For each work, by number of rows: core seconds, and memory of the process in MB.
    """
    lines = read_part(page, ROWS_BEGIN, ROWS_END).splitlines()
    sizes = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) rows: s", lines[0] if lines else "")]
    figures: dict[RowWork, dict[int, tuple[float, float]]] = {}
    step = ""
    for line in lines[2:]:
        first, name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        step = first.strip("`") or step
        used = [float(cell.replace(",", "")) if cell else None for cell in cells]
        figures[step, name] = {
            size: (seconds, megabytes)
            for size, seconds, megabytes in zip(sizes, used[::2], used[1::2], strict=True)
            if seconds is not None and megabytes is not None
        }
    return figures


def rows_of_step(figures: RowFigures, step: str) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Tell what a step needs for the rows of a manifest, in proportion between the numbers that were measured.

    For more rows than the largest number, the needs grow as between the two largest ones.

    Args:
        figures: result of :func:`read_rows`.
        step: name of the step.

    Returns:
        What computes the core seconds of all its work from the number of rows; the same for its memory, in bytes.

    Raises:
        SystemExit: if fewer than two numbers of rows were measured.
    """
    works = [cells for (of_step, _), cells in figures.items() if of_step == step]
    sizes = sorted(set.intersection(*(set(cells) for cells in works))) if works else []
    if len(sizes) < 2:
        raise SystemExit(f"expected {step} for two numbers of rows; run `python benchmarks/manifest_rows.py --write`")

    def need(amounts: Sequence[float]) -> Callable[[float], float]:
        def between(rows: float) -> float:
            upper = min(max(bisect(sizes, rows), 1), len(sizes) - 1)
            growth = (amounts[upper] - amounts[upper - 1]) / (sizes[upper] - sizes[upper - 1])
            return amounts[upper - 1] + growth * (rows - sizes[upper - 1])

        return between

    return (
        need([sum(cells[size][0] for cells in works) for size in sizes]),
        need([1e6 * max(cells[size][1] for cells in works) for size in sizes]),
    )


def write_rows(page: str, rows: int, used: Mapping[RowWork, tuple[float, float]]) -> str:
    """Put figures of some work into the table; those of other work, and of other numbers of rows, stay.

    Args:
        page: present text of docs/scale.md.
        rows: number of rows.
        used: core seconds, and memory of the process in MB, by work.

    Returns:
        The page with the new table.
    """
    figures = read_rows(page)
    for work, amounts in used.items():
        figures.setdefault(work, {})[rows] = amounts
    sizes = sorted({size for cells in figures.values() for size in cells})
    lines = [
        f"| step | work | {' | '.join(f'{size:,} rows: s | MB' for size in sizes)} |",
        f"|---|---|{'--:|--:|' * len(sizes)}",
    ]
    last = ""
    for (step, name), cells in figures.items():
        shown = [f"{cells[size][0]:,.1f} | {cells[size][1]:,.0f}" if size in cells else " | " for size in sizes]
        lines.append(f"| {'' if step == last else f'`{step}`'} | {name} | {' | '.join(shown)} |")
        last = step
    return replace_part(page, ROWS_BEGIN, "\n".join(lines), ROWS_END)
