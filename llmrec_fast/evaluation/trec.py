"""Reading TREC's run and qrels files for `evaluate`.

Only reads; see `adapters.py` for the rules on users, ties and positions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.adapters import Columns, EvaluationInput, assemble


def read_trec(qrels: str | Path, run: str | Path, *, catalogue: Sequence[Hashable] | None = None) -> EvaluationInput:
    """Read judgements and a run; metrics of the result equal those of trec_eval (with -c) and pytrec_eval.

    Fields are parted by white space: `query iteration document relevance` in the one, `query Q0 document rank score tag`
    in the other. As in trec_eval the score alone orders, in single precision, the rank is not read, and equal scores are
    ordered by falling document id. Judgements of 0 or less are not relevant.

    Parameters
    ----------
    qrels, run : UTF-8 text files; empty lines are skipped.
    catalogue : the documents by position; by default those that occur.

    Raises
    ------
    InvalidInput : a file that cannot be read, a line with too few fields or a number that is none (the message has the
        line), a document that a query has twice.
    """
    judged = _read(Path(qrels), fields=4, number=3, what="query iteration document relevance")
    scored = _read(Path(run), fields=6, number=4, what="query Q0 document rank score tag")
    single = scored.values.astype(np.float32).astype(np.float64)
    return assemble(Columns(scored.users, scored.items, single), judged, catalogue, dict.fromkeys(judged.users))


def _read(path: Path, fields: int, number: int, what: str) -> Columns:
    queries: list[Hashable] = []
    documents: list[Hashable] = []
    numbers: list[float] = []
    seen: set[tuple[str, str]] = set()
    for place, line in _lines(path):
        parts = line.split()
        if not parts:
            continue
        if len(parts) < fields:
            raise InvalidInput(f"{path}, line {place}: expected the {fields} fields {what!r}; got {line.strip()!r}")
        try:
            value = float(parts[number])
        except ValueError:
            value = float("nan")
        if math.isnan(value):
            raise InvalidInput(f"{path}, line {place}: {parts[number]!r} is not a number")
        if (parts[0], parts[2]) in seen:
            raise InvalidInput(f"{path}, line {place}: query {parts[0]!r} has the document {parts[2]!r} twice")
        seen.add((parts[0], parts[2]))
        queries.append(parts[0])
        documents.append(parts[2])
        numbers.append(value)
    return Columns(queries, documents, np.array(numbers, dtype=np.float64))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from enumerate(file, start=1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
