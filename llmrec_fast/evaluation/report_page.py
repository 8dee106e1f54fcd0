"""The HTML page of a report: one file, charts inline, nothing fetched. Lays out; measures nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmrec_fast.evaluation import svg
from llmrec_fast.evaluation.metrics import measures_accuracy
from llmrec_fast.evaluation.svg import escape

if TYPE_CHECKING:
    from llmrec_fast.evaluation.popularity_buckets import PopularityBucket
    from llmrec_fast.evaluation.report import EvaluationReport, MethodResult

_SIGNIFICANT = 0.05
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1040px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
table { border-collapse: collapse; margin: 1.2rem 0; }
.scroll { overflow-x: auto; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
th:first-child, td:first-child { text-align: left; }
td small { display: block; font-weight: 400; opacity: .7; white-space: nowrap; }
.best { font-weight: 700; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 1.5rem; }
svg { width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg text.title { font-size: 13px; font-weight: 600; }
svg .grid { stroke: currentColor; opacity: .15; }
svg .axis { stroke: currentColor; }
.swatch { display: inline-block; width: .7em; height: .7em; margin-right: .4em; border-radius: 2px; }
"""


def render_page(report: EvaluationReport) -> str:
    """The whole page."""
    charts = "\n".join(f"<figure>{chart}</figure>" for chart in _charts(report))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{_STYLE}figure {{ margin: 0; }}</style>
</head>
<body>
<h1>{escape(report.title)}</h1>
<p>{report.users:,} users with {report.relevant:,} relevant items; {report.n_items:,} items in the catalogue.</p>
<div class="scroll">{_table(report)}</div>
{_notes(report)}
{_cold_items(report)}
<div class="charts">
{charts}
</div>
</body>
</html>
"""


def _table(report: EvaluationReport) -> str:
    names = list(next(iter(report.methods.values())).figures)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for place, (method, result) in enumerate(report.methods.items()):
        swatch = f'<span class="swatch" style="background:{svg.colour_of(place)}"></span>'
        cells = "".join(_cell(report, result, name) for name in names)
        rows.append(f"<tr><td>{swatch}{escape(method)}</td>{cells}</tr>")
    return f"<table><thead><tr><th>method</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(report: EvaluationReport, result: MethodResult, name: str) -> str:
    value = result.figures[name]
    if not math.isfinite(value):
        return "<td>-</td>"
    small = ""
    if (interval := result.intervals.get(name)) is not None:
        small += f"<small>{interval.low:.4f} to {interval.high:.4f}</small>"
    if (p := result.p_values.get(name)) is not None:
        small += f"<small>p {'&lt; .001' if p < 0.001 else f'= {p:.3f}'}{' *' if p < _SIGNIFICANT else ''}</small>"
    best = measures_accuracy(name) and value == max(other.figures[name] for other in report.methods.values())
    return f"<td{' class=best' if best else ''}>{value:.4f}{small}</td>"


def _notes(report: EvaluationReport) -> str:
    notes = "Under a mean: its 95% bootstrap interval over users."
    if len(report.methods) > 1:
        notes += (
            f" p: paired randomisation test over users against {report.reference}, two-sided, not corrected for several "
            "comparisons; * marks p below .05."
        )
    return f"<p><small>{escape(notes)} Plots use {escape(report.main_metric)}.</small></p>"


def _cold_items(report: EvaluationReport) -> str:
    """What each method finds among items that nobody had chosen; nothing where none of those is relevant."""
    reference = report.methods[report.reference].cold_items
    if reference is None:
        return ""
    rows = []
    for method, result in report.methods.items():
        if (cold := result.cold_items) is None:
            continue
        reach = f"<small>{cold.recall.low:.4f} to {cold.recall.high:.4f}</small>"
        times = f"{cold.recall.mean / reference.recall.mean:.2f}" if reference.recall.mean else "-"
        rows.append(f"<tr><td>{escape(method)}</td><td>{cold.recall.mean:.4f}{reach}</td><td>{times}</td></tr>")
    head = f"<th>method</th><th>recall@{reference.k}</th><th>times {escape(report.reference)}</th>"
    return f"""<h2>Cold items</h2>
<p>{reference.items:,} items have no training interaction; {reference.users:,} users have a relevant one among them. Recall is
the mean over these users of the share of those items in the first {reference.k} of their list.</p>
<table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>"""


def _charts(report: EvaluationReport) -> list[str]:
    methods = report.methods
    main, cut = report.main_metric, report.main_metric.rpartition("@")[2]
    charts = []
    for metric, name in (("ndcg", "NDCG"), ("recall", "Recall")):
        lines = {
            method: [(float(k), y) for k, y in result.curves[metric] if math.isfinite(y)]
            for method, result in methods.items()
        }
        ticks = sorted({k for points in lines.values() for k, _ in points}) or [1.0]
        charts.append(svg.line_chart(f"{name} at k", "k (logarithmic)", f"{name}@k", lines, x_ticks=ticks))
    points = {
        method: (result.figures[main], result.coverage)
        for method, result in methods.items()
        if math.isfinite(result.figures[main])
    }
    charts.append(svg.scatter_chart("Coverage against accuracy", main, f"coverage@{cut}", points))
    buckets = next(iter(methods.values())).recall_by_popularity
    if buckets:
        heights = {
            method: [bucket.recall for bucket in result.recall_by_popularity] for method, result in methods.items()
        }
        label = "training interactions of the sought item (relevant items)"
        groups = [_bucket_name(bucket) for bucket in buckets]
        charts.append(svg.bar_chart("Recall by popularity", label, f"recall@{cut}", groups, heights))
    spread = {method: result.distribution for method, result in methods.items()}
    charts.append(svg.distribution_chart(f"Users by {main}", main, "share of users at or below", spread))
    return charts


def _bucket_name(bucket: PopularityBucket) -> str:
    reach = str(bucket.low) if bucket.low == bucket.high else f"{bucket.low}\u2013{bucket.high}"
    return f"{reach}\n({bucket.relevant:,})"
