"""
Writes the results page, with a plot for each kind of work.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from modes import MODES
from servers import SERVERS
from tables import cells, markdown, ratio, significant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from figures import Run, Spread, Summary
    from modes import Mode

__all__ = ["can_plot", "write_page"]

NAMES = tuple(server.name for server in SERVERS)

OURS, THEIRS, BASE = "#2f6db3", "#a9b4c2", "#d9822b"


def can_plot() -> bool:
    """
    Tell whether matplotlib is installed.
    """
    return find_spec("matplotlib") is not None


def write_page(run: Run, into: Path) -> Path:
    """
    Write `results.md` and its plots into a folder; return the page's path.

    Raises:
        OSError: they cannot be written.
    """
    plots = into / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    page = into / "results.md"
    modes = [mode for mode in MODES if mode.name in run.modes()]
    parts = [_head(run), _overview(run, modes)]
    for mode in modes:
        summaries = run.summaries(mode.name, NAMES)
        path = plots / f"{mode.name}.svg"
        _plot(mode, run, summaries, path)
        parts.append(_section(mode, run, summaries, path.relative_to(into)))
    page.write_text("\n\n".join(parts) + "\n", "utf-8")
    return page


def _head(run: Run) -> str:
    measured = {each.server for each in run.measurements}
    here = (run.machine | run.versions).items()
    who = [(each.name, each.title) for each in SERVERS if each.name in measured]
    return f"""\
# Benchmark results

Written by `python benchmarks/run.py --page`. [README.md](README.md) says how it is
measured, how to read it, and what it cannot tell.

{run.when}, `--rounds={run.rounds} --seconds={run.seconds:g} --seed={run.seed}`.

{_pairs("here", "", here)}

{_pairs("server", "what it is", who)}"""


def _pairs(name: str, value: str, pairs: Iterable[tuple[str, str]]) -> str:
    rows = ((name, value), ("---", "---"), *pairs)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _overview(run: Run, modes: Sequence[Mode]) -> str:
    by_server: dict[str, list[str]] = {}
    for at, mode in enumerate(modes):
        for each in run.summaries(mode.name, NAMES):
            row = by_server.setdefault(each.server, ["-"] * len(modes))
            figure = _figure(mode, each)
            row[at] = _written(mode, figure.median) if figure else "-"
    rows = [["server", *(mode.name for mode in modes)]]
    rows += [[name, *by_server[name]] for name in NAMES if name in by_server]
    idle = next((mode.name for mode in modes if mode.is_idle), None)
    but = f" ({idle}: KiB of memory a connection)" if idle else ""
    return (
        "## In short\n\n"
        f"Work done for the same processor time, with `{run.baseline}` as 1; medians,\n"
        f"more is better{but}.\n\n{markdown(rows)}"
    )


def _section(mode: Mode, run: Run, summaries: Sequence[Summary], plot: Path) -> str:
    other = run.other_load(mode.name)
    assert other is not None
    return (
        f"## {mode.name}\n\n"
        f"{mode.title[0].upper()}{mode.title[1:]}.\n\n"
        f"![{mode.name}]({plot})\n\n"
        f"{markdown(cells(mode, run.baseline, summaries))}\n\n"
        f"Others used {other.median:.0%} of a core meanwhile (median), at most"
        f" {other.most:.0%}."
    )


def _figure(mode: Mode, summary: Summary) -> Spread | None:
    return summary.kib if mode.is_idle else summary.ratio


def _written(mode: Mode, value: float) -> str:
    return significant(value) if mode.is_idle else ratio(value)


def _plot(mode: Mode, run: Run, summaries: Sequence[Summary], path: Path) -> None:
    """Draw a bar a server, the median, with a line from the least to the most."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    bars = [
        (each.server, figure)
        for each in reversed(summaries)
        if (figure := _figure(mode, each))
    ]
    ours = {server.name for server in SERVERS if server.is_ours}
    settings = {
        "svg.fonttype": "none",  # text as text: an eighth of the size
        "svg.hashsalt": mode.name,  # the same figures give the same file
        "font.size": 9,
    }
    with rc_context(settings):
        canvas = Figure(figsize=(7, 0.8 + 0.3 * len(bars)), layout="constrained")
        axes = canvas.add_subplot()
        for at, (name, figure) in enumerate(bars):
            color = BASE if name == run.baseline else OURS if name in ours else THEIRS
            axes.barh(at, figure.median, color=color, height=0.7)
            axes.plot([figure.least, figure.most], [at, at], color="black", linewidth=1)
            axes.annotate(
                _written(mode, figure.median),
                (max(figure.most, figure.median), at),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        if not mode.is_idle:
            axes.axvline(1, color=BASE, linewidth=0.8, linestyle="dashed")
        axes.set_xlabel(
            "KiB of memory a connection (less is better)"
            if mode.is_idle
            else f"{mode.unit}s for the same processor time, {run.baseline} is 1"
            if mode.unit != "MiB"
            else f"MiB for the same processor time, {run.baseline} is 1"
        )
        axes.margins(x=0.1)
        axes.spines[["top", "right"]].set_visible(False)
        canvas.savefig(path, metadata={"Date": None})
