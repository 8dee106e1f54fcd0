"""What a suite hands back: cells of measurements, targets, notes; written as JSON, Markdown and whatever plots it made.

The figures are plain values: anyone can reload the JSON and draw their own conclusions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Comparison, Measurement, Mode
from benchmarks.machine import describe


@dataclass(frozen=True)
class Target:
    """A figure that was promised, and what was reached."""

    name: str
    reached: float
    wanted: float
    at_least: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted


@dataclass
class Cell:
    """One row of the report: what was measured (`labels`), by whom (`comparison`), and derived figures."""

    labels: dict[str, str | int | float]
    comparison: Comparison
    figures: dict[str, float | str] = field(default_factory=dict)
    ratio_among: list[str] | None = None  # peers that count for the ratio; None: all
    section: str = ""  # cells of one section share their tables


@dataclass
class Report:
    """The result of one run of one suite."""

    suite: str
    title: str
    cells: list[Cell] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    plots: list[Path] = field(default_factory=list)
    command: str = ""
    machine: dict[str, object] = field(default_factory=describe)

    def as_dict(self) -> dict[str, object]:
        return {
            "suite": self.suite,
            "title": self.title,
            "command": self.command,
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": self.machine,
            "missing_peers": self.missing,
            "targets": [{**vars(target), "met": target.met} for target in self.targets],
            "cells": [_cell_as_dict(cell) for cell in self.cells],
            "figures": self.figures,
            "notes": self.notes,
            "plots": [path.name for path in self.plots],
        }

    def markdown(self) -> str:
        """The report as Markdown: machine, targets, one table a mode, notes."""
        lines = [f"# {self.title}", "", f"`{self.command}`", "", *_machine_lines(self.machine), ""]
        lines += [f"- **{name}** took no part: {why}" for name, why in self.missing.items()]
        lines += [f"- {note}" for note in self.notes]
        if self.targets:
            lines += ["", "| target | reached | wanted | met |", "|---|---:|---:|---|"]
            lines += [_target_line(target) for target in self.targets]
        lines += _tables(self.cells)
        notes = [(cell, note) for cell in self.cells for note in cell.comparison.notes]
        lines += ["", *(f"- {_labels(cell)}: {note}" for cell, note in notes)] if notes else []
        lines += ["", *(f"- {name}: {value}" for name, value in self.figures.items())] if self.figures else []
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write `SUITE.json` and `SUITE.md` into `folder`; returns all files of the report, plots included."""
        folder.mkdir(parents=True, exist_ok=True)
        data, text = folder / f"{self.suite}.json", folder / f"{self.suite}.md"
        data.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        pictures = "".join(f"\n![{path.stem}]({path.name})\n" for path in self.plots)
        text.write_text(self.markdown() + pictures)
        return [data, text, *self.plots]


def _cell_as_dict(cell: Cell) -> dict[str, object]:
    return {
        "section": cell.section,
        "labels": cell.labels,
        "measurements": [_measurement_as_dict(m) for m in cell.comparison.measurements],
        "notes": cell.comparison.notes,
        "figures": cell.figures,
    }


def _measurement_as_dict(m: Measurement) -> dict[str, object]:
    low, high = m.quartiles
    return {
        "contender": m.contender,
        "ours": m.ours,
        "mode": m.mode,
        "median_s": m.median,
        "minimum_s": m.minimum,
        "quartiles_s": [low, high],
        "repetitions": len(m.seconds),
        "seconds": m.seconds,
    }


def _machine_lines(machine: dict[str, object]) -> list[str]:
    versions = machine["versions"]
    software = ", ".join(" ".join(item) for item in versions.items()) if isinstance(versions, dict) else ""
    return [
        f"{machine['processor']}, {machine['cores']} cores, {int(str(machine['memory_bytes'])) / 2**30:.0f} GiB, "
        f"{machine['system']}, Python {machine['python']}; commit {machine['commit']}; load average "
        f"{machine['load_average']} at the start. {software}.",
    ]


def _target_line(target: Target) -> str:
    sign = "≥" if target.at_least else "≤"
    met = "yes" if target.met else "**no**"
    return f"| {target.name} | {target.reached:.3g} {target.unit} | {sign} {target.wanted:g} {target.unit} | {met} |"


def _labels(cell: Cell) -> str:
    return ", ".join(f"{name} {value}" for name, value in cell.labels.items())


def _tables(cells: list[Cell]) -> list[str]:
    """Each section's tables: the times hot, the times cold, then the derived figures."""
    lines: list[str] = []
    for section in dict.fromkeys(cell.section for cell in cells):
        members = [cell for cell in cells if cell.section == section]
        lines += ["", f"## {section}"] if section else []
        lines += [*_times(members, "hot"), *_times(members, "cold"), *_figures(members)]
    return lines


def _times(cells: list[Cell], mode: Mode) -> list[str]:
    """A row a cell, a column a contender."""
    timed = [(cell, {m.contender: m for m in cell.comparison.measurements if m.mode == mode}) for cell in cells]
    timed = [(cell, by_name) for cell, by_name in timed if by_name]
    if not timed:
        return []
    label_names = _names(cell.labels for cell, _ in timed)
    contenders = _names(by_name for _, by_name in timed)
    rows = [
        [
            *(str(cell.labels.get(name, "")) for name in label_names),
            *(_time(by_name[name]) if name in by_name else "" for name in contenders),
            _ratio(cell, mode),
        ]
        for cell, by_name in timed
    ]
    caption = "Hot: back to back" if mode == "hot" else "Cold: caches flushed before every call"
    return [
        "",
        f"**{caption}**; milliseconds: median [quartiles] of calls.",
        "",
        *_grid([*label_names, *contenders, "ratio to the fastest peer"], rows),
    ]


def _figures(cells: list[Cell]) -> list[str]:
    names = _names(cell.figures for cell in cells)
    if not names:
        return []
    label_names = _names(cell.labels for cell in cells)
    rows = [
        [*(str(cell.labels.get(n, "")) for n in label_names), *(_figure(cell.figures.get(n, "")) for n in names)]
        for cell in cells
    ]
    return ["", "**Figures**", "", *_grid([*label_names, *names], rows)]


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _names(mappings: Iterable[Iterable[str]]) -> list[str]:
    """All keys in the order in which they first appear."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _time(m: Measurement) -> str:
    low, high = (1e3 * seconds for seconds in m.quartiles)
    return f"{1e3 * m.median:.4g} [{low:.4g} to {high:.4g}] of {len(m.seconds)}"


def _ratio(cell: Cell, mode: Mode) -> str:
    peer = cell.comparison.fastest_peer(mode, cell.ratio_among)
    ratio = cell.comparison.ratio(mode, cell.ratio_among)
    return "" if peer is None or ratio is None else f"{ratio:.2f}x {peer.contender}"


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
