"""`util.community_detection`: groups of vectors around a central one, by cosine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Float64Array, Int64Array, as_count
from llmrec_fast.compat.exact_search import unit_rows
from llmrec_fast.compat.few_rows import FewRows, are_few
from llmrec_fast.compat.ranges import blocks_of, few_within, rows_within
from llmrec_fast.compat.sentence_transformers.tensors import as_array, as_rows
from llmrec_fast.errors import InvalidInput


def community_detection(
    embeddings: Any,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Communities of rows whose cosine to a central row is at least `threshold`, largest first, without overlap.

    Candidates are taken largest first, equal sizes by smaller central row; members come by falling cosine, equal ones by
    smaller row (torch.topk leaves those open in sentence-transformers).

    Parameters
    ----------
    embeddings : (n, d).
    threshold : least cosine, compared in float32.
    min_community_size : at least 1; smaller communities are left out.
    batch_size : rows whose cosines are computed together.
    show_progress_bar : whether a bar is shown.

    Returns
    -------
    Row numbers of each community, its central row first.
    """
    if len(embeddings) == 0:
        return []
    size = as_count(min_community_size, "min_community_size")
    batch_size = as_count(batch_size, "batch_size")
    bound = np.float32(threshold)
    if np.isnan(bound):
        raise InvalidInput("threshold must be a number; got NaN")
    rows = unit_rows(as_rows(as_array(embeddings), "embeddings"))
    if len(rows) < size:
        return []

    def judge(scores: Float64Array) -> BoolArray:
        passed: BoolArray = scores.astype(np.float32) >= bound
        return passed

    from tqdm import tqdm

    candidates: list[tuple[int, Int64Array]] = []
    few = FewRows(rows) if are_few(rows.shape) else None
    loose = float(np.nextafter(bound, np.float32(-np.inf)))
    for start in tqdm(range(0, len(rows), batch_size), desc="Finding clusters", disable=not show_progress_bar):
        batch = rows[start : start + batch_size]
        if few is None:
            found = rows_within(batch, blocks_of(rows), loose, judge, euclidean=False)
        else:
            found = few_within(batch, few, loose, judge, euclidean=False)
        for row in np.flatnonzero(np.diff(found.indptr) >= size).tolist():
            part = slice(int(found.indptr[row]), int(found.indptr[row + 1]))
            order = np.argsort(-found.scores[part], kind="stable")
            candidates.append((start + row, found.positions[part][order]))
    candidates.sort(key=lambda candidate: -len(candidate[1]))
    return _without_overlap(candidates, len(rows), size)


def _without_overlap(candidates: list[tuple[int, Int64Array]], count: int, size: int) -> list[list[int]]:
    communities: list[list[int]] = []
    used: npt.NDArray[np.bool_] = np.zeros(count, bool)
    for center, members in candidates:
        if used[center]:
            continue
        free = members[~used[members]]
        if len(free) >= size:
            community = [center, *free[free != center].tolist()]
            communities.append(community)
            used[community] = True
    return sorted(communities, key=len, reverse=True)
