"""
Tables of what was measured, for the terminal and for the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from figures import Spread, Summary
    from modes import Mode

__all__ = ["Cells", "aligned", "cells", "markdown", "ratio", "significant"]

Cells: TypeAlias = "list[list[str]]"
"""Rows, the headings first."""


def significant(value: float) -> str:
    """
    Write three digits or more: 0.123, 1.23, 12.3, 123, 123,456.
    """
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """
    Write two decimals, so that ratios stand below each other.
    """
    return f"{value:.2f}"


Written: TypeAlias = "Callable[[float], str]"


def _median(value: Spread | None, written: Written = significant) -> str:
    return written(value.median) if value else "-"


def _range(value: Spread | None, written: Written = significant) -> str:
    return f"{written(value.least)} to {written(value.most)}" if value else "-"


def cells(mode: Mode, baseline: str, summaries: Sequence[Summary]) -> Cells:
    """
    Make the table of one kind of work.
    """
    if mode.is_idle:
        heading = ["server", "KiB each", "range", "s to open", "range", "CPU us each"]
        return [heading] + [
            [
                each.server,
                _median(each.kib),
                _range(each.kib),
                _median(each.opening_seconds),
                _range(each.opening_seconds),
                _median(each.cpu_us),
            ]
            for each in summaries
        ]
    unit = mode.unit
    heading = ["server", f"x {baseline}", "range", f"CPU us/{unit}", "range"]
    heading += [f"{unit}s/s" if unit != "MiB" else "MiB/s"]
    has_times = any(each.p50_us for each in summaries)
    has_losses = any(each.lost.most for each in summaries)
    heading += ["p50 us", "p99 us"] * has_times + ["lost"] * has_losses
    rows = [heading]
    for each in summaries:
        row = [each.server, _median(each.ratio, ratio), _range(each.ratio, ratio)]
        row += [_median(each.cpu_us), _range(each.cpu_us), _median(each.rate)]
        row += [_median(each.p50_us), _median(each.p99_us)] * has_times
        row += [f"{each.lost.median:.2%}"] * has_losses
        rows.append(row)
    return rows


def aligned(rows: Cells) -> str:
    """
    Write a table for a terminal.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def markdown(rows: Cells) -> str:
    """
    Write a table for a page.
    """
    heading, *others = rows
    marks = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, marks, *others))
