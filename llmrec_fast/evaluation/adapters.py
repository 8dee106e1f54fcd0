"""From the forms that recommendations and judgements come in elsewhere to the arrays that `evaluate` takes.

Dictionaries, data frames and ranx's `Qrels` and `Run` here, TREC's files in `trec.py`. Rules that all share:

- Items become positions, users become rows. Users are those of the judgements in their order, then those that only have
  recommendations. A user without recommendations has a row of padding and counts 0, as with `trec_eval -c` (pytrec_eval
  and `trec_eval` alone leave such users out of the mean); one without judgements is left out.
- The highest score is first. Of equal scores the item whose id is later in the alphabet (`str(id)`) is first, as in
  trec_eval and so in pytrec_eval. A score that is not a number is refused.
- A recommendation that a user has twice is kept twice: `evaluate` counts it once, at its first rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float64Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.columns import as_float64
from llmrec_fast.evaluation.splits import is_missing

Scored: TypeAlias = Mapping[Hashable, float]

_NOTHING = object()


class Frame(Protocol):
    """A table whose columns are found by name: of pandas, polars or PyArrow, or a dict of columns."""

    def __getitem__(self, name: str, /) -> Any:
        """One column."""


class RanxTable(Protocol):
    """What ranx's `Qrels` and `Run` have in common."""

    def to_dict(self) -> Mapping[str, Mapping[str, float]]:
        """Query -> document -> score, the best first."""


@dataclass(frozen=True)
class EvaluationInput:
    """`evaluate(data.recommended, data.relevant, metrics, gains=data.gains, n_items=len(data.items))`.

    Attributes
    ----------
    recommended : (users, width) int64 positions in `items`, the best first, padded with -1.
    relevant : the CSR pair (indptr, positions).
    gains : float64 beside the relevant positions; all 1 where relevance is binary.
    users : the id of each row.
    items : the id of each position.
    """

    recommended: Int64Array
    relevant: tuple[Int64Array, Int64Array]
    gains: Float64Array
    users: list[Hashable]
    items: list[Hashable]


@dataclass(frozen=True)
class Columns:
    """One row a (user, item) pair: ids of any hashable kind, and a number each.

    `sizes` says how many successive rows each of `users` has; None: one each.
    """

    users: Sequence[Hashable] | npt.NDArray[Any]
    items: Sequence[Hashable] | npt.NDArray[Any]
    values: Float64Array
    sizes: Int64Array | None = None


def from_dicts(
    recommended: Mapping[Hashable, Scored | Sequence[Hashable]],
    relevant: Mapping[Hashable, Scored | Collection[Hashable]],
    *,
    catalogue: Sequence[Hashable] | None = None,
) -> EvaluationInput:
    """User -> item -> score, and user -> item -> gain.

    Parameters
    ----------
    recommended : user -> {item: score}, or user -> list of items, the best first.
    relevant : user -> {item: gain}, or user -> list or set of items.
    catalogue : the id of each position, where positions are to be those of other arrays (`item_counts` and so on); by
        default the items that occur.

    Raises
    ------
    InvalidInput : a score or gain that is no number, an id that is not in `catalogue`, no user at all.
    """
    return assemble(_flatten(recommended, "recommended"), _flatten(relevant, "relevant"), catalogue, list(relevant))


def from_frames(
    recommended: Frame,
    relevant: Frame,
    *,
    user: str = "user_id",
    item: str = "item_id",
    score: str | None = None,
    rank: str | None = None,
    gain: str | None = None,
    catalogue: Sequence[Hashable] | None = None,
) -> EvaluationInput:
    """Two data frames with a row a (user, item) pair; a frame with the columns of RecTools is read by `rank="rank"`.

    Parameters
    ----------
    recommended, relevant : data frames of pandas, polars or PyArrow, or dicts of columns.
    user, item : the columns of ids, called the same in both.
    score, rank : the column of `recommended` that orders it, a score (highest first) or a rank (lowest first). With
        neither, a user's rows stand best first.
    gain : the column of `relevant` that says how relevant; without it all rows are.
    catalogue : as in `from_dicts`.

    Raises
    ------
    InvalidInput : a missing column, missing ids, a score or gain that is no number, both `score` and `rank`.
    """
    if score is not None and rank is not None:
        raise InvalidInput("order by score= or by rank=, not by both")
    users, items = (_column(recommended, name, "recommended") for name in (user, item))
    judged_users, judged_items = (_column(relevant, name, "relevant") for name in (user, item))
    if score is not None:
        order = as_float64(_column(recommended, score, "recommended"), score, length=len(users), finite=False)
    elif rank is not None:
        order = -as_float64(_column(recommended, rank, "recommended"), rank, length=len(users), finite=False)
    else:
        order = -np.arange(len(users), dtype=np.float64)
    gains = (
        np.ones(len(judged_users))
        if gain is None
        else as_float64(_column(relevant, gain, "relevant"), gain, length=len(judged_users))
    )
    for name, first, second in (
        ("recommended", users, items),
        ("relevant", judged_users, judged_items),
    ):
        if len(first) != len(second):
            raise InvalidInput(f"{name} has columns of unequal length, {len(first)} and {len(second)}")
    return assemble(Columns(users, items, order), Columns(judged_users, judged_items, gains), catalogue)


def from_ranx(qrels: RanxTable, run: RanxTable, *, catalogue: Sequence[Hashable] | None = None) -> EvaluationInput:
    """ranx's `Qrels` and `Run`; ranx is not imported. Equal scores stay as the `Run` has ordered them, so as ranx does.

    Raises
    ------
    InvalidInput : other objects, a score that is not a number, an id that is not in `catalogue`.
    """
    for name, table in (("qrels", qrels), ("run", run)):
        if not callable(getattr(table, "to_dict", None)):
            raise InvalidInput(f"{name} must be a ranx object with to_dict(); got {type(table).__name__}")
    judged, scored = qrels.to_dict(), run.to_dict()
    ordered: dict[Hashable, Sequence[Hashable]] = {}
    for query, row in scored.items():
        scores = as_float64(list(row.values()), f"run of {query!r}", finite=False)
        if np.isnan(scores).any():
            raise InvalidInput(f"run has a score for {query!r} that is not a number")
        documents = list(row)
        ordered[query] = [documents[place] for place in np.argsort(-scores, kind="stable")]
    return from_dicts(ordered, {query: dict(row) for query, row in judged.items()}, catalogue=catalogue)


def assemble(
    recommended: Columns,
    relevant: Columns,
    catalogue: Sequence[Hashable] | None = None,
    users: Iterable[Hashable] = (),
) -> EvaluationInput:
    """Arrays from columns; `users` come first among the rows. The rules are those at the top of this file."""
    judged, listed, user_ids = _joint_codes(relevant.users, recommended.users, users, "users")
    known: Iterable[Hashable] = () if catalogue is None else catalogue
    relevant_items, items, item_ids = _joint_codes(relevant.items, recommended.items, known, "items")
    if catalogue is not None and len(item_ids) != len(catalogue):
        if len(set(catalogue)) != len(catalogue):
            raise InvalidInput("catalogue must not repeat an id")
        raise InvalidInput(f"the item {item_ids[len(catalogue)]!r} is not in the catalogue")
    if relevant.sizes is not None:
        judged = np.repeat(judged, relevant.sizes)
    if recommended.sizes is not None:
        listed = np.repeat(listed, recommended.sizes)
    if not user_ids:
        raise InvalidInput("there is no user: recommended and relevant are empty")
    scores = recommended.values
    if np.isnan(scores).any():
        row = int(np.argmax(np.isnan(scores)))
        user, item = user_ids[listed[row]], item_ids[items[row]]
        raise InvalidInput(f"the score of item {item!r} for user {user!r} is not a number")

    order = _best_first(listed, items, scores, item_ids)
    listed, items = listed[order], items[order]
    lengths = np.bincount(listed, minlength=len(user_ids))
    starts = np.cumsum(lengths) - lengths
    rows = np.full((len(user_ids), int(lengths.max(initial=0))), -1, dtype=np.int64)
    rows[listed, np.arange(len(listed)) - starts[listed]] = items
    by_user = np.argsort(judged, kind="stable")
    indptr = np.zeros(len(user_ids) + 1, dtype=np.int64)
    np.cumsum(np.bincount(judged, minlength=len(user_ids)), out=indptr[1:])
    return EvaluationInput(rows, (indptr, relevant_items[by_user]), relevant.values[by_user], user_ids, item_ids)


def _best_first(users: Int64Array, items: Int64Array, scores: Float64Array, item_ids: list[Hashable]) -> Int64Array:
    """The order by user, then falling score, then falling text of the id."""
    same_user = users[1:] == users[:-1]
    if ((users[1:] > users[:-1]) | (same_user & (scores[1:] < scores[:-1]))).all():
        return np.arange(len(users))
    order = np.lexsort((-scores, users))
    tied = (users[order][1:] == users[order][:-1]) & (scores[order][1:] == scores[order][:-1])
    if not tied.any():
        return order
    texts = [str(identifier) for identifier in item_ids]
    places = np.empty(len(texts), dtype=np.int64)
    places[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    return np.lexsort((-places[items], -scores, users))


def _joint_codes(
    first: Sequence[Hashable] | npt.NDArray[Any],
    second: Sequence[Hashable] | npt.NDArray[Any],
    known: Iterable[Hashable],
    name: str,
) -> tuple[Int64Array, Int64Array, list[Hashable]]:
    """Codes of both columns by first appearance, those of `known` before all others, and the id of each code."""
    # tolist turns NumPy's integers and texts into Python's, which hash alike in both columns
    columns = [column.tolist() if isinstance(column, np.ndarray) else column for column in (first, second)]
    try:
        different = dict.fromkeys(itertools.chain(known, *columns))
    except TypeError as error:
        raise InvalidInput(f"{name} must be ids that can be hashed: {error}") from error
    codes = dict(zip(different, itertools.count(), strict=False))
    coded = [np.fromiter(map(codes.__getitem__, column), dtype=np.int64, count=len(column)) for column in columns]
    missing = next((identifier for identifier in codes if is_missing(identifier)), _NOTHING)
    if missing is not _NOTHING:
        raise InvalidInput(f"{name} has a missing id ({missing!r}); drop such rows first")
    return coded[0], coded[1], list(codes)


def _flatten(rows: Mapping[Hashable, Any], name: str) -> Columns:
    """Pairs of a dict; a list of recommended items gets falling scores, a list of relevant ones gains of 1."""
    if not isinstance(rows, Mapping):
        raise InvalidInput(f"{name} must be a dict from user to items; got {type(rows).__name__}")
    ordered = name == "recommended"
    sizes: list[int] = []
    items: list[Hashable] = []
    values: list[Any] = []
    for user, row in rows.items():
        sizes.append(len(row) if isinstance(row, Collection) else 0)
        if isinstance(row, Mapping):
            items.extend(row)
            values.extend(row.values())
        elif isinstance(row, Sequence | np.ndarray if ordered else Collection) and not isinstance(row, str | bytes):
            items.extend(row.tolist() if isinstance(row, np.ndarray) else row)
            values.extend(range(0, -len(row), -1) if ordered else itertools.repeat(1.0, len(row)))
        else:
            raise InvalidInput(
                f"{name}[{user!r}] must be a dict from item to number or a list of items; got {type(row).__name__}"
            )
    numbers = as_float64(values, f"numbers of {name}", finite=not ordered)
    return Columns(list(rows), items, numbers, np.array(sizes, dtype=np.int64))


def _column(frame: Frame, name: str, argument: str) -> npt.NDArray[Any]:
    names = getattr(frame, "column_names", None)  # PyArrow, whose `columns` are the columns themselves
    if names is None:
        names = frame.keys() if isinstance(frame, Mapping) else getattr(frame, "columns", None)
    if names is None:
        raise InvalidInput(f"{argument} must be a data frame or a dict of columns; got {type(frame).__name__}")
    if name not in names:
        raise InvalidInput(f"{argument} has no column {name!r}; it has {', '.join(map(str, names))}")
    column = np.asarray(frame[name])
    if column.ndim != 1:
        raise InvalidInput(f"column {name!r} of {argument} must have one dimension; got shape {column.shape}")
    return column
