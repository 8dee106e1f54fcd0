"""Small charts as SVG text: lines, points and grouped bars. Only what the report needs, without a plotting library.

Every text is escaped, so that names may hold anything. Numbers must be finite.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Points: TypeAlias = Sequence[tuple[float, float]]

# Okabe and Ito's colours, which people who see colours differently can tell apart; with them the dashes differ too
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a", "#000000")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_WIDTH, _HEIGHT = 460, 276
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 30, 50
_LEGEND_LINE, _LEGEND_LETTERS = 17, 58
# what XML 1.0 does not allow, escaped or not
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """`text` safe as the content or an attribute of HTML and XML."""
    return html.escape(_NOT_XML.sub("\ufffd", text), quote=True)


def colour_of(place: int) -> str:
    """The colour of the method at a place of the list of methods, the same in every chart."""
    return COLOURS[place % len(COLOURS)]


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels along one axis, and says where the ticks are."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.stop - self.start) * (value - low) / (high - low)


def line_chart(title: str, x_label: str, y_label: str, lines: Mapping[str, Points], *, x_ticks: Sequence[float]) -> str:
    """Lines over a logarithmic x axis with the given ticks, all above 0; the y axis begins at 0."""
    ys = [y for points in lines.values() for _, y in points]
    x = _logarithmic(x_ticks, _LEFT, _WIDTH - _RIGHT)
    y = _linear(0.0, max(ys, default=1.0), _HEIGHT - _BOTTOM, _TOP)
    body = [_path(place, name, points, x, y, marks=True) for place, (name, points) in enumerate(lines.items())]
    return _chart(title, x_label, y_label, x, y, body, list(lines))


def distribution_chart(title: str, x_label: str, y_label: str, lines: Mapping[str, Points]) -> str:
    """Lines over linear axes, x from the smallest value to the largest and y from 0 to 1."""
    xs = [x for points in lines.values() for x, _ in points]
    x = _linear(min(xs, default=0.0), max(xs, default=1.0), _LEFT, _WIDTH - _RIGHT)
    y = _linear(0.0, 1.0, _HEIGHT - _BOTTOM, _TOP)
    body = [_path(place, name, points, x, y, marks=False) for place, (name, points) in enumerate(lines.items())]
    return _chart(title, x_label, y_label, x, y, body, list(lines))


def scatter_chart(title: str, x_label: str, y_label: str, points: Mapping[str, tuple[float, float]]) -> str:
    """One point a name; both axes begin at 0."""
    x = _linear(0.0, max((px for px, _ in points.values()), default=1.0), _LEFT, _WIDTH - _RIGHT)
    y = _linear(0.0, max((py for _, py in points.values()), default=1.0), _HEIGHT - _BOTTOM, _TOP)
    body = [
        f'<circle cx="{x.at(px):.1f}" cy="{y.at(py):.1f}" r="6" fill="{colour_of(place)}">'
        f"<title>{escape(name)}: {number(px)}, {number(py)}</title></circle>"
        for place, (name, (px, py)) in enumerate(points.items())
    ]
    return _chart(title, x_label, y_label, x, y, body, list(points))


def bar_chart(
    title: str, x_label: str, y_label: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]]
) -> str:
    """Groups of bars, one a name; `bars[name][g]` is its height in group g. A group's name may have two lines."""
    y = _linear(0.0, max((height for row in bars.values() for height in row), default=1.0), _HEIGHT - _BOTTOM, _TOP)
    x = Scale(0.0, max(len(groups), 1), _LEFT, _WIDTH - _RIGHT, ())
    width = 0.8 * (x.at(1) - x.at(0)) / max(len(bars), 1)
    body = []
    for place, (name, row) in enumerate(bars.items()):
        for group, height in enumerate(row):
            left, top = x.at(group + 0.1) + place * width, y.at(height)
            hint = f"{name}, {' '.join(groups[group].split())}: {number(height)}"
            body.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{0.94 * width:.1f}" height="{y.start - top:.1f}" '
                f'fill="{colour_of(place)}"><title>{escape(hint)}</title></rect>'
            )
    for group, label in enumerate(groups):
        for line, text in enumerate(label.split("\n")):
            body.append(_text(x.at(group + 0.5), _HEIGHT - _BOTTOM + 15 + 12 * line, text, anchor="middle"))
    return _chart(title, x_label, y_label, x, y, body, list(bars))


def number(value: float) -> str:
    """A number for people: four significant digits at most."""
    return f"{value:.4g}"


def _chart(
    title: str, x_label: str, y_label: str, x: Scale, y: Scale, body: Sequence[str], names: Sequence[str]
) -> str:
    height = _HEIGHT + _LEGEND_LINE * len(names) + 6
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        _text(_WIDTH / 2, 16, title, anchor="middle", style="title"),
    ]
    for tick in y.ticks:
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.stop}" y1="{y.at(tick):.1f}" y2="{y.at(tick):.1f}"/>')
        parts.append(_text(x.start - 6, y.at(tick) + 4, number(tick), anchor="end"))
    for tick in x.ticks:
        parts.append(_text(x.at(tick), _HEIGHT - _BOTTOM + 15, number(tick), anchor="middle"))
    parts.append(f'<line class="axis" x1="{x.start}" x2="{x.stop}" y1="{y.start}" y2="{y.start}"/>')
    parts += body
    parts.append(_text((x.start + x.stop) / 2, _HEIGHT - 3, x_label, anchor="middle"))
    middle = (y.start + y.stop) / 2
    parts.append(
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">'
        f"{escape(y_label)}</text>"
    )
    for place, name in enumerate(names):
        line = _HEIGHT + _LEGEND_LINE * (place + 0.5)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + 24}" y1="{line:.1f}" y2="{line:.1f}" stroke="{colour_of(place)}" '
            f'stroke-width="3" stroke-dasharray="{_dash(place)}"/>'
        )
        short = name if len(name) <= _LEGEND_LETTERS else name[: _LEGEND_LETTERS - 1] + "…"
        parts.append(_text(_LEFT + 32, line + 4, short, anchor="start"))
    return "\n".join([*parts, "</svg>"])


def _path(place: int, name: str, points: Points, x: Scale, y: Scale, *, marks: bool) -> str:
    pixels = " ".join(f"{x.at(px):.1f},{y.at(py):.1f}" for px, py in points)
    line = (
        f'<polyline fill="none" stroke="{colour_of(place)}" stroke-width="2" stroke-dasharray="{_dash(place)}" '
        f'points="{pixels}"><title>{escape(name)}</title></polyline>'
    )
    if not marks:
        return line
    return line + "".join(
        f'<circle cx="{x.at(px):.1f}" cy="{y.at(py):.1f}" r="3" fill="{colour_of(place)}">'
        f"<title>{escape(name)}: {number(py)} at {number(px)}</title></circle>"
        for px, py in points
    )


def _text(x: float, y: float, text: str, *, anchor: str, style: str = "label") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dash(place: int) -> str:
    """Solid for the first methods; once colours repeat, dashes tell them apart."""
    return _DASHES[place // len(COLOURS) % len(_DASHES)]


def _linear(low: float, high: float, start: float, stop: float) -> Scale:
    """An axis from a round number at or below `low` to one at or above `high`."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(place * step, 12) for place in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, stop, ticks)


def _logarithmic(ticks: Sequence[float], start: float, stop: float) -> Scale:
    """An axis from the first tick to the last; a single tick stands in the middle."""
    low, high = min(ticks), max(ticks)
    if low == high:
        low, high = low / 2, high * 2
    return Scale(low, high, start, stop, tuple(ticks), logarithmic=True)
