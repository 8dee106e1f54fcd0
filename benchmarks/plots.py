"""Plots of reports, as SVG. They only draw what the report holds; without matplotlib the report says so and goes on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# ours first, in black; peers keep their colour from plot to plot
COLOURS = {
    "llmrec_fast": "#000000",
    "faiss": "#d95f02",
    "torch": "#7570b3",
    "numpy": "#1b9e77",
    "usearch": "#e7298a",
    "svs": "#66a61e",
    "scikit-learn": "#a6761d",
    "hnswlib": "#999999",
    "sentence-transformers": "#d95f02",
    "fastembed": "#1b9e77",
}
APPROXIMATE = {"hnswlib"}
Points = Sequence[tuple[float, float]]


@dataclass
class Panel:
    """One set of axes, both logarithmic: lines by contender, and dashed reference lines by what they mean."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Points]
    references: Mapping[str, Points] = field(default_factory=dict)


@dataclass
class Bars:
    """Horizontal bars, one a contender, with their values written beside them."""

    title: str
    x_label: str
    values: Mapping[str, float]
    references: Mapping[str, float] = field(default_factory=dict)


def draw(panels: Sequence[Panel | Bars], path: Path, title: str, columns: int = 3) -> str:
    """Draw `panels` as a grid into `path` (the suffix chooses the format). Returns why nothing was drawn, or ''."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return 'matplotlib is not installed, so nothing was drawn; pip install ".[bench]"'
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.4 * columns, 3.9 * rows), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        if isinstance(panel, Bars):
            _draw_bars(axis, panel)
        else:
            _draw_lines(axis, panel)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.suptitle(textwrap.fill(title, 65 * columns), fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return ""


def _draw_lines(axis: Any, panel: Panel) -> None:
    for name, points in panel.lines.items():
        width, height = (2.4, 3) if name == "llmrec_fast" else (1.3, 2)
        style = "--" if name in APPROXIMATE else "-"
        xs, ys = zip(*sorted(points), strict=True)
        axis.plot(
            xs, ys, style, marker="o", ms=3.5, lw=width, zorder=height, color=COLOURS.get(name, "#bbbbbb"), label=name
        )
    for name, points in panel.references.items():
        xs, ys = zip(*sorted(points), strict=True)
        axis.plot(xs, ys, ":", color="#c00000", lw=1.4, label=name, zorder=1)
    ticks = sorted({x for points in panel.lines.values() for x, _ in points})
    axis.set(xscale="log", yscale="log", xlabel=panel.x_label, ylabel=panel.y_label)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_title(panel.title, fontsize=9)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=6.5)


def _draw_bars(axis: Any, panel: Bars) -> None:
    names = list(panel.values)[::-1]
    colours = [COLOURS.get(name, "#bbbbbb") for name in names]
    bars = axis.barh(names, [panel.values[name] for name in names], color=colours)
    axis.bar_label(bars, fmt="%.4g", fontsize=7, padding=2)
    for name, value in panel.references.items():
        axis.axvline(value, ls=":", color="#c00000", lw=1.4, label=name)
    if panel.references:
        axis.legend(fontsize=7)
    axis.set_xlabel(panel.x_label)
    axis.set_title(panel.title, fontsize=9)
    axis.margins(x=0.15)
