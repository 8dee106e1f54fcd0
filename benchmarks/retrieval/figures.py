"""Targets and plots of the retrieval suite, drawn from the cells of its report."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from benchmarks.harness import Mode
from benchmarks.plots import Panel, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.retrieval.engines import EXACT_PEERS

SECTION = "Grid"
ONE_PASS = "read every float32 byte once"
# (data, N, d, Q, k) -> how many times faster than the fastest exact peer
RATIOS = {
    ("real", 480_000, 384, 1): (12.0, 9.0),
    ("real", 480_000, 384, 16): (7.0, 5.0),
    ("real", 480_000, 384, 256): (5.0, 3.0),
    ("real", 480_000, 384, 1024): (3.0, 2.0),
    ("noise", 200_000, 384, 1): (4.5, 3.5),
    ("noise", 200_000, 384, 16): (3.0, 2.3),
    ("noise", 200_000, 384, 256): (1.7, 1.2),
    ("noise", 200_000, 384, 1024): (1.1, 0.95),
}
ONE_PASS_SHARE = {10: 0.1, 100: 0.15}


def finish(report: Report, folder: Path) -> None:
    """Add the targets that the measured cells allow, and draw the plots."""
    cells = [cell for cell in report.cells if cell.section == SECTION]
    if not cells:
        return
    report.targets += [target for cell in cells for target in _targets(cell, cells)]
    for name, panels in _plots(cells).items():
        if not panels:
            continue
        path = folder / f"retrieval-{name.replace(' ', '-')}.svg"
        problem = draw(panels, path, f"{report.title}: {name}, back to back, medians")
        if problem:
            report.notes.append(problem)
            return
        report.plots.append(path)


def _targets(cell: Cell, cells: list[Cell]) -> list[Target]:
    kind, rows, dimension, queries, k = (cell.labels[name] for name in ("data", "N", "d", "Q", "k"))
    ratio = cell.comparison.ratio("hot", list(EXACT_PEERS))
    name = f"{kind} {rows:,} x {dimension}, Q={queries}, k={k}"
    targets = []
    wanted = RATIOS.get((str(kind), int(rows), int(dimension), int(queries)))
    if wanted and ratio and k in (10, 100):
        targets.append(Target(f"{name}: over the fastest peer", ratio, wanted[k == 100]))
    if (kind, rows, dimension, queries) == ("real", 480_000, 384, 1) and k in ONE_PASS_SHARE:
        share = float(cell.figures["ours / one pass"])
        targets.append(Target(f"{name}: time over one float32 pass", share, ONE_PASS_SHARE[int(k)], at_least=False))
    if (kind, rows, queries) == ("real", 480_000, 1) and int(dimension) > 384 and ratio:
        labels = {**cell.labels, "d": 384}
        reference = [c.comparison.ratio("hot", list(EXACT_PEERS)) for c in cells if c.labels == labels]
        if reference and reference[0]:
            targets.append(Target(f"{name}: ratio, no lower than at d=384", ratio, round(reference[0], 2)))
    return targets


def _plots(cells: list[Cell]) -> dict[str, list[Panel]]:
    return {
        "latency by queries": _panels(cells, "Q", ("data", "N", "d", "k"), latency=True),
        "throughput by queries": _panels(cells, "Q", ("data", "N", "d", "k"), latency=False),
        "latency by rows": _panels(cells, "N", ("data", "d", "Q", "k"), latency=True),
        "throughput by rows": _panels(cells, "N", ("data", "d", "Q", "k"), latency=False),
        "latency by dimension": _panels(cells, "d", ("data", "N", "Q", "k"), latency=True),
    }


def _panels(cells: list[Cell], along: str, fixed: tuple[str, ...], *, latency: bool, mode: Mode = "hot") -> list[Panel]:
    """One panel for each combination of the `fixed` labels that was measured at two or more values of `along`."""
    groups: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[tuple(cell.labels[name] for name in fixed)].append(cell)
    panels = []
    for values, members in groups.items():
        if len({cell.labels[along] for cell in members}) < 2:
            continue
        lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
        one_pass: list[tuple[float, float]] = []
        for cell in members:
            x, queries = float(cell.labels[along]), float(cell.labels["Q"])
            for m in cell.comparison.measurements:
                if m.mode == mode:
                    lines[m.contender].append((x, 1e3 * m.median if latency else queries / m.median))
            milliseconds = float(cell.figures["one float32 pass, ms"])
            one_pass.append((x, milliseconds if latency else 1e3 * queries / milliseconds))
        panels.append(
            Panel(
                ", ".join(_words(name, value) for name, value in zip(fixed, values, strict=True)),
                {"Q": "queries a call", "N": "rows", "d": "dimensions"}[along],
                "milliseconds a call" if latency else "queries a second",
                lines,
                {ONE_PASS: one_pass},
            )
        )
    return panels


def _words(name: str, value: object) -> str:
    return str(value) if name == "data" else f"{name} = {value:,}"
