"""What is relevant to whom: the accepted forms, checked and brought to one.

Does not look at recommendations; see `ranking.py` for the meeting of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import ArrayLike, Float64Array, Int64Array, as_count, as_int64
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.columns import as_float64
from llmrec_fast.kernels.threads import get_threads, run_parallel, split_range

Relevant: TypeAlias = tuple[ArrayLike, ArrayLike] | Sequence[ArrayLike] | Mapping[int, ArrayLike]
Gains: TypeAlias = npt.NDArray[Any] | Sequence[float] | Sequence[ArrayLike] | Mapping[int, ArrayLike]

_PADDING = -1
_IDS_WORTH_A_THREAD = 100_000
_LARGEST_EXPONENT = 500  # 2^500 still leaves room to sum and to square


@dataclass(frozen=True)
class Relevance:
    """The relevant ids of each user, sorted and without repetition.

    Attributes
    ----------
    offsets : (users,) int64, where a user's ids begin in `ids`.
    counts : (users,) int64, how many different ones there are.
    ids : int64; between two users' ids there may be unused places.
    gains : float64 beside `ids`, all above 0, for graded relevance; None if relevance is binary.
    """

    offsets: Int64Array
    counts: Int64Array
    ids: Int64Array
    gains: Float64Array | None = None

    def users_and_ids(self) -> tuple[Int64Array, Int64Array]:
        """Each relevant (user, id) pair once, by user: two int64 arrays of one length."""
        users = np.repeat(np.arange(len(self.counts)), self.counts)
        starts = np.cumsum(self.counts) - self.counts
        return users, self.ids[np.arange(len(users)) - starts[users] + self.offsets[users]]

    @cached_property
    def best_first(self) -> Float64Array:
        """`gains` with each user's in falling order, the order of its ideal list."""
        from llmrec_fast.evaluation import compiled

        if self.gains is None:
            raise InvalidInput("relevance without gains has no ideal order")
        best = self.gains.copy()
        users = len(self.counts)
        pieces = min(get_threads(), 1 + len(best) // _IDS_WORTH_A_THREAD)
        run_parallel(
            compiled.sort_gains, [(self.offsets, self.counts, best, *piece) for piece in split_range(users, pieces)]
        )
        return best

    @cached_property
    def best_first_grown(self) -> Float64Array:
        """2^gain - 1 of `best_first`. Raises `InvalidInput` where that would be too large to sum."""
        return grow_gains(self.best_first)


def grow_gains(gains: Float64Array) -> Float64Array:
    """2^gain - 1 for exponential gain; raises `InvalidInput` where that would be too large to sum."""
    if len(gains) and gains.max() > _LARGEST_EXPONENT:
        raise InvalidInput(f"gains up to {gains.max():g} are too large for 2^gain - 1; at most {_LARGEST_EXPONENT}")
    grown: Float64Array = np.exp2(gains) - 1.0
    return grown


def as_relevance(relevant: Relevant, users: int, gains: Gains | None = None, name: str = "relevant") -> Relevance:
    """Check and sort `relevant`; ids that a user has twice count once.

    Parameters
    ----------
    relevant : a tuple `(indptr, ids)` in CSR form, or a list with one array of ids a user, or a dict from row number
        (0 to users - 1) to ids; users that a dict does not name have no relevant ids.
    users : number of users.
    gains : how relevant each id is, in the same form: (n,) numbers beside the ids of a CSR pair, or a list or dict of
        arrays as long as those of `relevant`. An id whose gain is 0 or less is not relevant; of an id that a user has
        twice the larger gain counts.
    name : what the caller calls `relevant`, for messages.

    Raises
    ------
    InvalidInput : another number of users, ids that are no integers or -1 (the padding), a broken indptr, gains that do
        not fit or are not finite.
    """
    if isinstance(relevant, tuple):
        if len(relevant) != 2:
            raise InvalidInput(f"{name} as a tuple must be (indptr, ids); got {len(relevant)} elements; use a list")
        indptr, ids = _check_csr(relevant[0], relevant[1], users, name)
    elif isinstance(relevant, Mapping):
        indptr, ids = _concatenate([relevant.get(user, ()) for user in _check_keys(relevant, users, name)], name)
    elif isinstance(relevant, Sequence | np.ndarray):
        if len(relevant) != users:
            raise InvalidInput(f"{name} must have one array of ids for each of {users} users; got {len(relevant)}")
        indptr, ids = _concatenate(relevant, name)
    else:
        raise InvalidInput(
            f"{name} must be a list of id arrays, a tuple (indptr, ids) or a dict from row number to ids; "
            f"got {type(relevant).__name__}"
        )
    if (ids == _PADDING).any():
        user = int(np.searchsorted(indptr, np.argmax(ids == _PADDING), side="right")) - 1
        raise InvalidInput(f"{name} holds the id -1 for user {user}; -1 is the padding of recommendations")
    if gains is None:
        return _sorted(indptr, ids)
    return _sorted_with_gains(indptr, ids, _check_gains(relevant, gains, indptr))


def group_items(user_positions: ArrayLike, item_ids: ArrayLike, users: int) -> tuple[Int64Array, Int64Array]:
    """The CSR pair `(indptr, ids)` of interactions: what `evaluate` takes as relevant and `Index.search` as exclude.

    Parameters
    ----------
    user_positions : (n,) integers from 0 to users - 1.
    item_ids : (n,) integers, kept in the order they come within each user.
    users : number of users.

    Returns
    -------
    indptr (users + 1,) and ids (n,), int64: user u has `ids[indptr[u] : indptr[u + 1]]`.
    """
    users = as_count(users, "users", minimum=0)
    rows = as_int64(user_positions, "user_positions")
    ids = as_int64(item_ids, "item_ids", length=len(rows))
    if len(rows) and (rows.min() < 0 or rows.max() >= users):
        raise InvalidInput(f"user_positions must lie in 0 to {users - 1}; got {rows.min()} to {rows.max()}")
    indptr = np.zeros(users + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=users), out=indptr[1:])
    return indptr, ids[np.argsort(rows, kind="stable")]


def group_items_of(chosen: ArrayLike, user_codes: ArrayLike, item_ids: ArrayLike) -> tuple[Int64Array, Int64Array]:
    """`group_items` of some users: row r has the items of the interactions whose user is `chosen[r]`; others are left out.

    Parameters
    ----------
    chosen : (users,) distinct integers from 0 on.
    user_codes, item_ids : (n,) who chose what.
    """
    users, codes = as_int64(chosen, "chosen"), as_int64(user_codes, "user_codes")
    rows = np.full(max(users.max(initial=-1), codes.max(initial=-1)) + 1, -1)
    rows[users] = np.arange(len(users))
    kept = rows[codes] >= 0
    return group_items(rows[codes[kept]], as_int64(item_ids, "item_ids", length=len(codes))[kept], len(users))


def _check_csr(indptr: ArrayLike, ids: ArrayLike, users: int, name: str) -> tuple[Int64Array, Int64Array]:
    offsets = as_int64(indptr, f"{name}'s indptr")
    values = as_int64(ids, f"{name}'s ids")
    if len(offsets) != users + 1:
        raise InvalidInput(f"{name}'s indptr must have {users + 1} entries, one more than users; got {len(offsets)}")
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise InvalidInput(
            f"{name}'s indptr must rise from 0 to the number of ids, {len(values)}, and never fall; it goes from "
            f"{offsets[0]} to {offsets[-1]}"
        )
    return offsets, values.copy()


def _check_keys(relevant: Mapping[int, ArrayLike], users: int, name: str) -> range:
    for key in relevant:
        if isinstance(key, bool) or not isinstance(key, int | np.integer) or not 0 <= key < users:
            raise InvalidInput(f"{name}'s keys are row numbers of recommended, 0 to {users - 1}; got {key!r}")
    return range(users)


def _concatenate(rows: Sequence[ArrayLike] | npt.NDArray[np.generic], name: str) -> tuple[Int64Array, Int64Array]:
    """One new array of all users' ids."""
    arrays = [np.asarray(row) for row in rows]
    indptr = np.zeros(len(arrays) + 1, dtype=np.int64)
    filled = []
    for user, array in enumerate(arrays):
        if array.ndim != 1:
            raise InvalidInput(f"{name}[{user}] must be one array of ids; got shape {array.shape}")
        indptr[user + 1] = array.size
        if array.size:  # an empty list has no meaningful dtype
            if array.dtype.kind not in "iu":
                raise InvalidInput(f"{name}[{user}] must be integers; got dtype {array.dtype}")
            filled.append(array)
    np.cumsum(indptr, out=indptr)
    ids = np.concatenate(filled) if filled else np.empty(0, dtype=np.int64)
    if ids.dtype.kind == "f":  # NumPy's common type of int64 and uint64
        ids = np.concatenate([as_int64(array, name) for array in filled])
    return indptr, as_int64(ids, name)


def _check_gains(relevant: Relevant, gains: Gains, indptr: Int64Array) -> Float64Array:
    """One finite float64 number for each relevant id, in the order of the ids."""
    users = len(indptr) - 1
    if isinstance(relevant, Mapping) != isinstance(gains, Mapping) or (
        isinstance(relevant, Mapping) and isinstance(gains, Mapping) and gains.keys() != relevant.keys()
    ):
        raise InvalidInput("gains must be a dict with the keys of relevant where relevant is a dict, and only there")
    if isinstance(gains, Mapping):
        rows: Sequence[ArrayLike] = [gains.get(user, ()) for user in range(users)]
    elif isinstance(relevant, tuple):
        return as_float64(cast(ArrayLike, gains), "gains", length=int(indptr[-1])).copy()
    elif isinstance(gains, Sequence | np.ndarray) and len(gains) == users:
        rows = cast(Sequence[ArrayLike], gains)
    else:
        raise InvalidInput(f"gains must have one array of numbers for each of {users} users, as relevant has")
    sizes = np.diff(indptr)
    return np.concatenate([as_float64(row, f"gains[{u}]", length=int(sizes[u])) for u, row in enumerate(rows)])


def _sorted_with_gains(indptr: Int64Array, ids: Int64Array, gains: Float64Array) -> Relevance:
    from llmrec_fast.evaluation import compiled

    users = len(indptr) - 1
    counts = np.empty(users, dtype=np.int64)
    pieces = min(get_threads(), 1 + len(ids) // _IDS_WORTH_A_THREAD)
    run_parallel(
        compiled.sort_rows_with_gains,
        [(indptr, ids, gains, counts, *piece) for piece in split_range(users, pieces)],
    )
    return Relevance(indptr[:-1], counts, ids, gains)


def _sorted(indptr: Int64Array, ids: Int64Array) -> Relevance:
    from llmrec_fast.evaluation import compiled

    users = len(indptr) - 1
    counts = np.empty(users, dtype=np.int64)
    pieces = min(get_threads(), 1 + len(ids) // _IDS_WORTH_A_THREAD)
    run_parallel(compiled.sort_rows, [(indptr, ids, counts, start, stop) for start, stop in split_range(users, pieces)])
    return Relevance(indptr[:-1], counts, ids)
