"""Suite `dropin`: each module of llmrec_fast.compat against the library it stands in for, on that library's usual work.

Both are called in the same way, from the same code, with the same inputs (torch tensors where the library's users have them).
Models and indexes are built outside the timed call unless the cell says so. Answers are held against float64 first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.encode_texts import descriptions
from benchmarks.harness import Contender, Effort, compare
from benchmarks.peers import import_peers
from benchmarks.plots import Bars, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.retrieval import data
from benchmarks.threads import Neutral, use_threads

Array = npt.NDArray[Any]
Ways = dict[str, Callable[[int], Any]]
OURS = "llmrec_fast"
K = 10
# float32 sums of some hundreds of products of unit vectors
TOLERANCE = 1e-4
ROWS, QUICK_ROWS = 60_000, 6_000
QUERIES, QUICK_QUERIES = 1000, 200
FACTORS, LIKED = 128, 50
TEXTS, QUICK_TEXTS = 1000, 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vectors", type=Path, help=f"real vectors, .npy (default: ${data.VECTORS_VARIABLE}, or encoded)"
    )
    parser.add_argument("--rows", type=int, help=f"rows to search (default: {ROWS})")
    parser.add_argument("--model", default="minilm", help="known name or folder (default: %(default)s)")


def run(arguments: argparse.Namespace) -> Report:
    modules, missing = import_peers(["faiss", "implicit.cpu.als", "ranx", "sentence_transformers", "sklearn", "torch"])
    report = Report("dropin", "Drop-in modules against their originals", missing=missing)
    report.notes = [f"{arguments.threads} threads for everyone", *use_threads(arguments.threads)]
    base, source = data.load_real(arguments.vectors)
    report.notes.append(source)
    quick = arguments.quick
    rows = arguments.rows or (QUICK_ROWS if quick else ROWS)
    vectors = data.make("real", rows, base.shape[1], base, queries=data.MOST_QUERIES)
    neutral = Neutral(arguments.threads)
    effort = Effort(seconds=arguments.seconds or (0.2 if quick else 3.0), minimum=3, maximum=15, modes=("hot",))

    def add(section: str, work: str, ways: Ways, check: Callable[[Any], str], wanted: float | None = None) -> None:
        comparison = compare([Contender(name, way, check, name == OURS) for name, way in ways.items()], neutral, effort)
        report.cells.append(Cell({"module": section, "work": work}, comparison))
        ratio = comparison.ratio()
        if wanted is not None and ratio is not None and not quick:
            report.targets.append(Target(f"{section}: {work}", ratio, wanted))

    many = QUICK_QUERIES if quick else QUERIES
    for queries, wanted in ((1, None), (100, 6.0), (many, 6.0)):
        ways = _semantic_search(vectors.rows, vectors.queries[:queries], modules)
        check = _best_scores(vectors.rows, vectors.queries[:queries], _hit_scores)
        add("sentence_transformers", f"semantic_search, {queries} queries", ways, check, wanted)
    for queries, wanted in ((1, 3.0), (16, 3.0), (256, 3.0), (many, 3.0)):
        ways = _faiss(vectors.rows, vectors.queries[:queries], modules)
        check = _best_scores(vectors.rows, vectors.queries[:queries], lambda answer: answer[0])
        add("faiss", f"IndexFlatIP.search, {queries} queries", ways, check, wanted)
    # our estimators derive from scikit-learn's: without it there is nothing to time
    for fitting, wanted in ((False, 6.0), (True, None)) if "sklearn" in modules else ():
        ways = _sklearn(vectors.rows, vectors.queries[:many], fitting)
        check = _best_scores(vectors.rows, vectors.queries[:many], lambda answer: 1 - answer[0])
        add("sklearn", f"NearestNeighbors(cosine), {many} queries{', fit included' * fitting}", ways, check, wanted)
    ways, check = _implicit(vectors.rows, vectors.queries[:many], modules)
    add("implicit", f"recommend, {many} users, liked items filtered", ways, check, 3.0)
    add("ranx", f"evaluate ndcg@10, map@100, mrr of {many} queries", *_ranx(many, modules))
    texts = descriptions(QUICK_TEXTS if quick else TEXTS)
    add("sentence_transformers", f"encode, {len(texts)} descriptions", *_encode(arguments.model, texts, modules), 1.7)
    path = arguments.output / "dropin.svg"
    if problem := draw([_bars(cell) for cell in report.cells], path, f"{report.title}, {rows} rows", columns=3):
        report.notes.append(problem)
    else:
        report.plots.append(path)
    return report


def _semantic_search(rows: Array, queries: Array, modules: Mapping[str, ModuleType]) -> Ways:
    from llmrec_fast.compat.sentence_transformers import util

    torch = modules.get("torch")
    corpus, asked = (rows, queries) if torch is None else (torch.from_numpy(rows), torch.from_numpy(queries))
    ways: Ways = {OURS: lambda _: util.semantic_search(asked, corpus, top_k=K)}
    if (peer := modules.get("sentence_transformers")) is not None:
        ways["sentence-transformers"] = lambda _: peer.util.semantic_search(asked, corpus, top_k=K)
    return ways


def _faiss(rows: Array, queries: Array, modules: Mapping[str, ModuleType]) -> Ways:
    import llmrec_fast.compat.faiss as ours

    ways: Ways = {}
    for name, library in ((OURS, ours), ("faiss", modules.get("faiss"))):
        if library is not None:
            index = library.IndexFlatIP(rows.shape[1])
            index.add(rows)
            ways[name] = lambda _, index=index: index.search(queries, K)
    return ways


def _sklearn(rows: Array, queries: Array, fitting: bool) -> Ways:
    from sklearn.neighbors import NearestNeighbors as Peer

    from llmrec_fast.compat.sklearn import NearestNeighbors

    ways: Ways = {}
    for name, kind in ((OURS, NearestNeighbors), ("scikit-learn", Peer)):
        if fitting:
            ways[name] = lambda _, kind=kind: kind(n_neighbors=K, metric="cosine").fit(rows).kneighbors(queries)
        else:
            fitted = kind(n_neighbors=K, metric="cosine").fit(rows)
            ways[name] = lambda _, fitted=fitted: fitted.kneighbors(queries)
    return ways


def _implicit(rows: Array, queries: Array, modules: Mapping[str, ModuleType]) -> tuple[Ways, Callable[[Any], str]]:
    """Real vectors, cut to their leading axes, stand for factors; every user liked some items."""
    from scipy.sparse import csr_matrix

    from llmrec_fast.compat.implicit import MatrixFactorization

    factors = np.ascontiguousarray(data.cast_dimension(np.concatenate([rows, queries]), FACTORS))
    items, users = factors[: len(rows)], factors[len(rows) :]
    rng = np.random.default_rng(0)
    liked = np.stack([np.sort(rng.choice(len(items), LIKED, replace=False)) for _ in users])
    indptr = np.arange(0, liked.size + 1, LIKED)
    history = csr_matrix((np.ones(liked.size, np.float32), liked.ravel(), indptr), (len(users), len(items)))
    ids = np.arange(len(users))
    ours = MatrixFactorization.from_factors(users, items)
    ways: Ways = {OURS: lambda _: ours.recommend(ids, history, N=K)}
    if (peer := modules.get("implicit.cpu.als")) is not None:
        model = peer.AlternatingLeastSquares(factors=items.shape[1])
        model.user_factors, model.item_factors = users, items
        ways["implicit"] = lambda _: model.recommend(ids, history, N=K)
    return ways, _best_scores(items, users, lambda answer: answer[1], excluded=liked)


def _ranx(queries: int, modules: Mapping[str, ModuleType]) -> tuple[Ways, Callable[[Any], str]]:
    import llmrec_fast.compat.ranx as ours

    rng = np.random.default_rng(0)
    judged = {f"q{q}": {f"d{d}": int(rng.integers(1, 4)) for d in rng.choice(1000, 20)} for q in range(queries)}
    ranked = {f"q{q}": {f"d{d}": float(rng.random()) for d in rng.choice(1000, 100)} for q in range(queries)}
    metrics = ["ndcg@10", "map@100", "mrr"]
    wanted = ours.evaluate(judged, ranked, metrics)
    ways: Ways = {}
    for name, library in ((OURS, ours), ("ranx", modules.get("ranx"))):
        if library is not None:
            ways[name] = lambda _, x=library: x.evaluate(x.Qrels(judged), x.Run(ranked), metrics)

    def check(answer: Mapping[str, float]) -> str:
        worst = max(abs(answer[metric] - wanted[metric]) for metric in metrics)
        return "" if worst < 1e-9 else f"differs by {worst:.1e}"

    return ways, check


def _encode(model: str, texts: list[str], modules: Mapping[str, ModuleType]) -> tuple[Ways, Callable[[Any], str]]:
    from llmrec_fast.compat.sentence_transformers import SentenceTransformer
    from llmrec_fast.encoding.model_files import find_model

    folder = str(find_model(model).folder)
    ours = SentenceTransformer(folder)
    wanted = ours.encode(texts[:64])
    ways: Ways = {OURS: lambda _: ours.encode(texts)}
    if (library := modules.get("sentence_transformers")) is not None:
        peer = library.SentenceTransformer(folder, device="cpu")
        wanted = peer.encode(texts[:64], show_progress_bar=False)
        ways["sentence-transformers"] = lambda _: peer.encode(texts, show_progress_bar=False)

    def check(answer: Array) -> str:
        worst = float(np.abs(answer[: len(wanted)] - wanted).max())
        return "" if worst <= TOLERANCE else f"differs by {worst:.1e}"

    return ways, check


def _best_scores(
    rows: Array, queries: Array, scores_of: Callable[[Any], Any], excluded: Array | None = None
) -> Callable[[Any], str]:
    """A check that an answer's scores are the K greatest inner products, whoever holds them."""
    wanted = np.empty((len(queries), K))
    for start in range(0, len(queries), 100):
        piece = slice(start, start + 100)
        exact = queries[piece].astype(np.float64) @ rows.T.astype(np.float64)
        if excluded is not None:
            np.put_along_axis(exact, excluded[piece], -np.inf, axis=1)
        wanted[piece] = -np.sort(np.partition(-exact, K - 1, axis=1)[:, :K], axis=1)

    def check(answer: Any) -> str:
        worst = float(np.abs(np.asarray(scores_of(answer), np.float64) - wanted).max())
        return "" if worst <= TOLERANCE else f"scores differ from the exact ones by {worst:.1e}"

    return check


def _hit_scores(answer: list[list[dict[str, float]]]) -> list[list[float]]:
    return [[hit["score"] for hit in hits] for hits in answer]


def _bars(cell: Cell) -> Bars:
    hot = {m.contender: 1e3 * m.median for m in cell.comparison.measurements}
    return Bars(f"{cell.labels['module']}: {cell.labels['work']}", "milliseconds (median)", hot)
