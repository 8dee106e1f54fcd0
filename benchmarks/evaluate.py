"""Suite `evaluate`: eight ranking metrics at two cut-offs for many users, against ranx, pytrec_eval and RecTools.

Everyone gets the data in the form it likes best, made before the clock starts: arrays, ranx's `Run`, nested dictionaries,
data frames. Scores fall strictly and every user has judgements, so that no rule on ties or empty users tells the tools
apart. Each computes those of the metrics that it has; a metric that a peer lacks is work that it does not do.

The second section starts a fresh process, loads the data untimed, and times from the import to the answer: what a script
waits for that evaluates once. Compiled code is on disk by then, as one process of each kind has run before.

Run as `python -m benchmarks.evaluate CHILD FILE`, this module is that process.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Comparison, Contender, Disagreement, Effort, Measurement, compare
from benchmarks.peers import import_peers
from benchmarks.plots import Bars, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.threads import Neutral, use_threads

Array = npt.NDArray[Any]
USERS, WIDTH, ITEMS, CUTS = 20_000, 100, 50_000, (10, 100)
QUICK_USERS = 500
METRICS = ("precision", "recall", "f1", "hit_rate", "ndcg", "ndcg_exponential", "map", "mrr")
RANX = {**{name: name for name in METRICS}, "ndcg_exponential": "ndcg_burges"}
PYTREC_EVAL = {"precision": "P", "recall": "recall", "hit_rate": "success", "ndcg": "ndcg_cut", "map": "map_cut"}
OURS, OURS_FROM_DICTS = "llmrec_fast", "llmrec_fast from dicts"
TOLERANCE = 1e-9
WANTED_SPEEDUP, WANTED_FRESH_SPEEDUP = 10.0, 100.0
FRESH_REPETITIONS, LONG_CHILD_SECONDS = 3, 20.0


@dataclass(frozen=True)
class Work:
    """Recommendations (users, width) and relevant ids with gains from 1 to 3, CSR."""

    recommended: Array
    indptr: Array
    ids: Array
    gains: Array

    def rows(self) -> list[tuple[Array, Array]]:
        """Each user's relevant ids and gains."""
        return [(self.ids[a:b], self.gains[a:b]) for a, b in zip(self.indptr[:-1], self.indptr[1:], strict=True)]

    def run(self) -> dict[str, dict[str, float]]:
        """As nested dictionaries, the form of ranx and pytrec_eval."""
        width = self.recommended.shape[1]
        return {
            f"u{user}": {f"i{item}": float(width - place) for place, item in enumerate(row)}
            for user, row in enumerate(self.recommended.tolist())
        }

    def qrels(self) -> dict[str, dict[str, int]]:
        return {
            f"u{user}": {f"i{item}": int(gain) for item, gain in zip(ids, gains, strict=True)}
            for user, (ids, gains) in enumerate(self.rows())
        }


def make_work(users: int, width: int = WIDTH, items: int = ITEMS) -> Work:
    """1 to 30 relevant items a user, of which about a quarter stand somewhere in the list."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 31, users)
    recommended = np.empty((users, width), dtype=np.int64)
    relevant = []
    for user, count in enumerate(counts):
        drawn = rng.choice(items, width + int(count), replace=False)
        own = drawn[: int(count)]
        shown = drawn[int(count) :]
        found = own[rng.random(len(own)) < 0.25]
        shown[rng.choice(width, len(found), replace=False)] = found
        recommended[user] = shown
        relevant.append(own)
    ids = np.concatenate(relevant)
    return Work(recommended, np.append(0, np.cumsum(counts)), ids, rng.integers(1, 4, len(ids)))


def oracle(work: Work) -> dict[str, float]:
    """Every metric from its definition on the whole matrix of hits, in NumPy and float64."""
    users, width = work.recommended.shape
    counts = np.diff(work.indptr)
    relevant_keys = np.repeat(np.arange(users), counts) * ITEMS + work.ids
    order = np.argsort(relevant_keys)
    keys = np.arange(users)[:, None] * ITEMS + work.recommended
    places = np.minimum(np.searchsorted(relevant_keys[order], keys), len(order) - 1)
    hits = relevant_keys[order][places] == keys
    gains = np.where(hits, work.gains[order][places], 0)
    ideal = np.zeros((users, counts.max()))
    for user, (_, own) in enumerate(work.rows()):
        ideal[user, : len(own)] = np.sort(own)[::-1]
    discount, ideal_discount = (1 / np.log2(np.arange(size) + 2) for size in (width, ideal.shape[1]))
    result: dict[str, Array] = {}
    for k in CUTS:
        h, found = hits[:, :k], hits[:, :k].sum(axis=1)
        result[f"precision@{k}"], result[f"recall@{k}"] = found / k, found / counts
        result[f"f1@{k}"], result[f"hit_rate@{k}"] = 2 * found / (k + counts), found > 0
        result[f"map@{k}"] = (h * h.cumsum(axis=1) / (np.arange(h.shape[1]) + 1)).sum(axis=1) / counts
        result[f"mrr@{k}"] = np.where(found > 0, 1 / (h.argmax(axis=1) + 1), 0)
        for name, grow in (("ndcg", lambda g: g), ("ndcg_exponential", lambda g: 2.0**g - 1)):
            reached = (grow(gains[:, :k]) * discount[:k]).sum(axis=1)
            result[f"{name}@{k}"] = reached / (grow(ideal[:, :k]) * ideal_discount[:k]).sum(axis=1)
    return {name: float(values.mean()) for name, values in result.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=int, default=None, help=f"default: {USERS}; {QUICK_USERS} with --quick")


def run(arguments: argparse.Namespace) -> Report:
    modules, missing = import_peers(["ranx", "pytrec_eval", "rectools.metrics"])
    neutral = Neutral(arguments.threads)
    report = Report("evaluate", "Evaluation: eight metrics at two cut-offs", missing=missing)
    report.notes = [f"{arguments.threads} threads for everyone that has threads", *use_threads(arguments.threads)]
    users = arguments.users or (QUICK_USERS if arguments.quick else USERS)
    work = make_work(users)
    wanted = oracle(work)
    effort = Effort(seconds=arguments.seconds or (0.1 if arguments.quick else 4.0), minimum=3, maximum=31)
    labels: dict[str, str | int | float] = {"users": users, "recommendations": WIDTH, "relevant": len(work.ids)}
    contenders = _contenders(work, modules, wanted, arguments.threads)
    warm = compare(contenders, neutral, effort)
    report.cells.append(Cell(labels, warm, section="Data in each tool's own form"))
    fresh = _fresh(work, "ranx" in modules, wanted, arguments.threads)
    report.cells.append(
        Cell(labels, fresh, ratio_among=["ranx"], section="A fresh process, from the import to the answer")
    )
    if users == USERS:
        report.targets = _targets(warm, fresh)
    bars = [
        Bars("data ready", "milliseconds (median)", _medians(warm)),
        Bars("a fresh process", "milliseconds (median)", _medians(fresh)),
    ]
    path = arguments.output / "evaluate.svg"
    if problem := draw(
        bars, path, f"{report.title}, {users:,} users x {WIDTH}, {arguments.threads} threads", columns=2
    ):
        report.notes.append(problem)
    else:
        report.plots.append(path)
    return report


def _contenders(
    work: Work, modules: Mapping[str, ModuleType], wanted: Mapping[str, float], threads: int
) -> list[Contender]:
    from llmrec_fast.evaluation import evaluate

    names = [f"{metric}@{k}" for metric in METRICS for k in CUTS]

    def check(answer: Mapping[str, float]) -> str:
        return _problem(answer, wanted)

    def ours(_: int) -> dict[str, float]:
        return evaluate(work.recommended, (work.indptr, work.ids), names, gains=work.gains)

    found = [Contender(OURS, ours, check, ours=True)]
    run = qrels = None
    if "ranx" in modules or "pytrec_eval" in modules:
        run, qrels = work.run(), work.qrels()
    if (ranx := modules.get("ranx")) is not None:
        table, judged = ranx.Run(run), ranx.Qrels(qrels)
        theirs = [f"{RANX[metric]}@{k}" for metric in METRICS for k in CUTS]
        found.append(
            Contender(
                "ranx",
                lambda _: dict(zip(names, ranx.evaluate(judged, table, theirs, threads=threads).values(), strict=True)),
                check,
            )
        )
    if (pytrec_eval := modules.get("pytrec_eval")) is not None:
        cuts = ",".join(map(str, CUTS))
        measures = {f"{measure}.{cuts}" for measure in PYTREC_EVAL.values()} | {"recip_rank"}
        evaluator = pytrec_eval.RelevanceEvaluator(qrels, measures)
        # it gives values by query; taking their mean is left out of its time
        found.append(
            Contender("pytrec_eval", lambda _: evaluator.evaluate(run), lambda answer: check(_of_pytrec_eval(answer)))
        )
    if (metrics := modules.get("rectools.metrics")) is not None:
        found.append(Contender("rectools", _rectools(work, metrics), check))
    return found


def _of_pytrec_eval(answer: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    means = {
        f"{metric}@{k}": float(np.mean([values[f"{measure}_{k}"] for values in answer.values()]))
        for metric, measure in PYTREC_EVAL.items()
        for k in CUTS
    }
    # its reciprocal rank has no cut-off: it is that of the whole list
    means[f"mrr@{WIDTH}"] = float(np.mean([values["recip_rank"] for values in answer.values()]))
    return means


def _rectools(work: Work, metrics: ModuleType) -> Callable[[int], Any]:
    """It is asked for six of the eight: its NDCG knows no gains."""
    import pandas as pd

    users, width = work.recommended.shape
    reco = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), width),
            "item_id": work.recommended.ravel(),
            "rank": np.tile(np.arange(1, width + 1), users),
        }
    )
    relevant = pd.DataFrame({"user_id": np.repeat(np.arange(users), np.diff(work.indptr)), "item_id": work.ids})
    kinds = {
        "precision": metrics.Precision,
        "recall": metrics.Recall,
        "f1": metrics.F1Beta,
        "hit_rate": metrics.HitRate,
        "map": metrics.MAP,
        "mrr": metrics.MRR,
    }
    asked = {f"{name}@{k}": kind(k=k) for name, kind in kinds.items() for k in CUTS}
    return lambda _: metrics.calc_metrics(asked, reco=reco, interactions=relevant)


def _problem(answer: Mapping[str, float], wanted: Mapping[str, float]) -> str:
    """What is wrong with an answer, or ''. An answer may leave out metrics, but not have others or none."""
    if not answer or answer.keys() - wanted.keys():
        return f"answers {sorted(answer)}"
    name = max(answer, key=lambda name: abs(answer[name] - wanted[name]))
    error = abs(answer[name] - wanted[name])
    return "" if error <= TOLERANCE else f"{name} differs from float64 by {error:.2e}, more than {TOLERANCE:g}"


# -- fresh processes ------------------------------------------------------------------------------------------------------


def _fresh(work: Work, with_ranx: bool, wanted: Mapping[str, float], threads: int) -> Comparison:
    """Each child's own clock, from its import to the answer; the first child of each kind is not counted."""
    children = [OURS, OURS_FROM_DICTS, *(["ranx"] if with_ranx else [])]
    comparison = Comparison([], [])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work.pickle"
        path.write_bytes(pickle.dumps({"work": vars(work), "run": work.run(), "qrels": work.qrels()}))
        for name in children:
            seconds: list[float] = []
            while len(seconds) < 1 + FRESH_REPETITIONS:
                took, answer = _child(name, path, threads)
                if problem := _problem(answer, wanted):
                    if name != "ranx":
                        raise Disagreement(f"{name} in a fresh process: {problem}")
                    comparison.notes.append(f"{name} is not timed: {problem}")
                    break
                seconds.append(took)
                if len(seconds) > 1 and took > LONG_CHILD_SECONDS:
                    break
            if len(seconds) > 1:
                comparison.measurements.append(Measurement(name, "hot", seconds[1:], ours=name == OURS))
    return comparison


def _child(name: str, path: Path, threads: int) -> tuple[float, dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.evaluate", name, str(path), str(threads)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr[-4000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], result["answer"]


def answer_fresh(name: str, path: str, threads: int) -> dict[str, Any]:
    """The work of a fresh process: load, then import and evaluate against the clock."""
    data = pickle.loads(Path(path).read_bytes())
    work, names = Work(**data["work"]), [f"{metric}@{k}" for metric in METRICS for k in CUTS]
    start = time.perf_counter()
    if name == "ranx":
        import ranx

        theirs = [f"{RANX[metric]}@{k}" for metric in METRICS for k in CUTS]
        values = ranx.evaluate(ranx.Qrels(data["qrels"]), ranx.Run(data["run"]), theirs, threads=threads)
        answer = dict(zip(names, values.values(), strict=True))
    else:
        from llmrec_fast import set_threads
        from llmrec_fast.evaluation import evaluate, from_dicts

        set_threads(threads)
        if name == OURS:
            answer = evaluate(work.recommended, (work.indptr, work.ids), names, gains=work.gains)
        else:
            made = from_dicts(data["run"], data["qrels"])
            answer = evaluate(made.recommended, made.relevant, names, gains=made.gains)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "answer": {key: float(value) for key, value in answer.items()}}


def _targets(warm: Comparison, fresh: Comparison) -> list[Target]:
    timed = {m.contender: m for m in warm.measurements if m.mode == "hot"}
    targets = [
        Target(f"speed over {name}, data ready", timed[name].median / timed[OURS].median, WANTED_SPEEDUP)
        for name in ("pytrec_eval", "ranx")
        if name in timed
    ]
    alone = {m.contender: m for m in fresh.measurements}
    if "ranx" in alone:
        ratio = alone["ranx"].median / timed[OURS].median
        name = "ranx from dictionaries in a fresh process, over ours with data ready"
        targets.append(Target(name, ratio, WANTED_FRESH_SPEEDUP))
    return targets


def _medians(comparison: Comparison) -> dict[str, float]:
    return {m.contender: 1e3 * m.median for m in comparison.measurements if m.mode == "hot"}


if __name__ == "__main__":
    print(json.dumps(answer_fresh(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
