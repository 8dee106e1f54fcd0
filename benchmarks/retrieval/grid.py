"""The grid of the retrieval suite: one data set, every number of queries and of results, all engines in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.harness import Contender, Effort, compare
from benchmarks.report import Cell, Report
from benchmarks.retrieval import oracle
from benchmarks.retrieval.data import Dataset, Float32Array
from benchmarks.retrieval.engines import EXACT_PEERS, OURS, Engine, build_peers
from benchmarks.retrieval.figures import SECTION
from benchmarks.threads import Neutral

# An engine that would need this long for one call, and many times what the fastest needs, is not asked to.
PATIENCE_SECONDS, PATIENCE_RATIO = 15.0, 6.0


@dataclass(frozen=True)
class Settings:
    queries: Sequence[int]
    k: Sequence[int]
    peers: Sequence[str]
    threads: int
    approximate_rows: int


def run(
    report: Report,
    dataset: Dataset,
    index: Any,
    settings: Settings,
    modules: Mapping[str, ModuleType],
    neutral: Neutral,
    effort: Effort,
) -> None:
    """Add one cell to `report` for every (queries, k) on `dataset`."""
    answers = oracle.find(dataset.rows, dataset.queries[: max(settings.queries)], max(settings.k))
    peers, notes = build_peers(settings.peers, modules, dataset.rows, settings.threads, settings.approximate_rows)
    report.notes += notes
    for peer in peers:
        if not peer.exact:
            report.figures[f"{dataset.name}: {peer.name} build, s"] = round(peer.build_seconds, 1)
    ours = Engine(OURS, lambda queries, k: index.search(queries, k).ids, 0.0)
    one_pass = dataset.rows.nbytes / neutral.bandwidth()
    for k in settings.k:
        per_query: dict[str, float] = {}
        for count in settings.queries:
            field, left_out = _worth_asking([ours, *peers], per_query, count)
            recall: dict[str, float] = {}
            contenders = [_contender(engine, dataset.queries, count, k, answers, recall) for engine in field]
            comparison = compare(contenders, neutral, effort)
            comparison.notes += left_out
            per_query |= {m.contender: m.median / count for m in comparison.measurements if m.mode == "hot"}
            labels = {"data": dataset.kind, "N": len(dataset.rows), "d": dataset.rows.shape[1], "Q": count, "k": k}
            figures = _statistics(index, dataset.queries[:count], k, len(dataset.rows))
            figures["one float32 pass, ms"] = 1e3 * one_pass
            figures["ours / one pass"] = comparison.ours().median / one_pass
            figures |= {f"{name} recall": value for name, value in recall.items()}
            report.cells.append(Cell(labels, comparison, figures, ratio_among=list(EXACT_PEERS), section=SECTION))
            _say(report.cells[-1])


def _contender(
    engine: Engine, queries: Float32Array, count: int, k: int, answers: oracle.Oracle, recall: dict[str, float]
) -> Contender:
    """The engine with its own queries for each repetition, the same ones for everybody."""
    places = max(1, len(queries) - count + 1)

    def call(repetition: int) -> Any:
        start = repetition * count % places
        return engine.search(queries[start : start + count], k)

    def check(answer: Any) -> str:
        ids = np.asarray(answer)
        if not engine.exact:
            recall[engine.name] = answers.recall(ids, k)
            return ""
        return answers.wrong_order(ids, k) if engine.name == OURS else answers.too_far(ids, k)

    return Contender(engine.name, call, check, ours=engine.name == OURS)


def _worth_asking(engines: list[Engine], per_query: dict[str, float], count: int) -> tuple[list[Engine], list[str]]:
    """Leave out who is hopelessly slow by what it took for fewer queries, with a note for each."""
    exact = [per_query[engine.name] for engine in engines if engine.name in per_query and engine.name != OURS]
    fastest, chosen, notes = min(exact, default=0.0), [], []
    for engine in engines:
        expected = per_query.get(engine.name, 0.0) * count
        slow = expected > PATIENCE_SECONDS and expected > PATIENCE_RATIO * fastest * count
        if slow and engine.name != OURS:
            notes.append(f"{engine.name} is not run: about {expected:.0f} s a call by its time for fewer queries")
        else:
            chosen.append(engine)
    return chosen, notes


def _statistics(index: Any, queries: Float32Array, k: int, rows: int) -> dict[str, float | str]:
    stats = index.search(queries, k, stats=True).stats
    pairs = len(queries) * rows
    return {
        "plan": stats.plan,
        "after stage 0, %": 100 * stats.after_stage_0 / pairs,
        "after stage 1, %": 100 * stats.after_stage_1 / pairs,
        "reranked a query": stats.reranked / len(queries),
        "bytes read a row": stats.bytes_read / pairs,
    }


def _say(cell: Cell) -> None:
    """A line for whoever waits: a full grid takes its time."""
    times = ", ".join(f"{m.contender} {1e3 * m.median:.4g}" for m in cell.comparison.measurements if m.mode == "hot")
    ratio = cell.comparison.ratio("hot", cell.ratio_among)
    labels = " ".join(f"{name}={value}" for name, value in cell.labels.items())
    print(f"{labels}: {times} ms" + (f"; {ratio:.2f}x" if ratio else ""), flush=True)
