"""What a training part, or another row of the test part, tells of the answers. Finds leaks; removes nothing.

Whether something found here is a leak depends on the protocol: in a split by time an item of the test part is expected
in training, in a split by cold items it must not be there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import ArrayLike, BoolArray, Int64Array, as_int64
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.relevance import Relevant, as_relevance
from llmrec_fast.evaluation.splits import sort_key


@dataclass(frozen=True)
class SplitLeaks:
    """For each of n test interactions, (n,) bool, what of it occurs in training.

    Attributes
    ----------
    interactions : the same user with the same item; a mask of seen items then hides the answer, no mask gives it away.
    items, users : the item, the user. None of them may be in a split by cold items, or cold users.
    user_future : training holds a later interaction of the same user; None without timestamps.
    any_future : training holds a later interaction of anybody, as in every split that is made user by user; None
        without timestamps.
    """

    interactions: BoolArray
    items: BoolArray
    users: BoolArray
    user_future: BoolArray | None
    any_future: BoolArray | None

    def __str__(self) -> str:
        parts = {
            "are in training": self.interactions,
            "have their item in training": self.items,
            "have their user in training": self.users,
            "come before a training interaction of their user": self.user_future,
            "come before a training interaction of anybody": self.any_future,
        }
        return f"of {len(self.items)} test interactions " + "; ".join(
            _share(mask, what) for what, mask in parts.items() if mask is not None
        )


@dataclass(frozen=True)
class SequenceLeaks:
    """For each of n test rows, (n,) bool, whether its target stands in the history of another row.

    Attributes
    ----------
    same_user : in another row of the same user, as in files that cut one sequence in several rows: a later row's history
        holds an earlier row's answer. None if users were not given.
    any_row : in another row at all. Popular items do so in any file; it matters to whoever learns from test histories.
    """

    same_user: BoolArray | None
    any_row: BoolArray

    def __str__(self) -> str:
        found = [_share(self.any_row, "have their target in the history of another row")]
        if self.same_user is not None:
            found.insert(0, _share(self.same_user, "have their target in the history of another row of the same user"))
        return f"of {len(self.any_row)} test rows " + "; ".join(found)


def find_leaks(
    train_users: ArrayLike,
    train_items: ArrayLike,
    test_users: ArrayLike,
    test_items: ArrayLike,
    *,
    train_timestamps: ArrayLike | None = None,
    test_timestamps: ArrayLike | None = None,
) -> SplitLeaks:
    """Look for what the training part of a split tells of its test part.

    Parameters
    ----------
    train_users, train_items : (m,) ids that can be sorted.
    test_users, test_items : (n,) ids of the same kinds.
    train_timestamps, test_timestamps : (m,) and (n,) numbers or datetimes; both or none. Equal times are not later.

    Raises
    ------
    InvalidInput : columns of unequal length, missing values, ids or times of different kinds.
    """
    train_user, test_user = _joint_codes(train_users, test_users, "users")
    train_item, test_item = _joint_codes(train_items, test_items, "items")
    for name, first, second in (("train", train_user, train_item), ("test", test_user, test_item)):
        if len(first) != len(second):
            raise InvalidInput(
                f"{name}_users and {name}_items must be of equal length; got {len(first)}, {len(second)}"
            )
    n_users = 1 + max(train_user.max(initial=-1), test_user.max(initial=-1))
    width = 1 + max(train_item.max(initial=-1), test_item.max(initial=-1))
    user_future = any_future = None
    if (train_timestamps is None) != (test_timestamps is None):
        raise InvalidInput("train_timestamps and test_timestamps go together; got one of them")
    if train_timestamps is not None and test_timestamps is not None:
        train_time, test_time = _joint_codes(train_timestamps, test_timestamps, "timestamps")
        if len(train_time) != len(train_user) or len(test_time) != len(test_user):
            raise InvalidInput(
                f"timestamps must be as many as interactions, {len(train_user)} and {len(test_user)}; got "
                f"{len(train_time)} and {len(test_time)}"
            )
        last = np.full(n_users, -1)
        np.maximum.at(last, train_user, train_time)
        user_future = test_time < last[test_user]
        any_future = test_time < last.max(initial=-1)
    return SplitLeaks(
        interactions=np.isin(test_user * width + test_item, train_user * width + train_item),
        items=np.isin(test_item, train_item),
        users=np.isin(test_user, train_user),
        user_future=user_future,
        any_future=any_future,
    )


def find_sequence_leaks(histories: Relevant, targets: ArrayLike, users: ArrayLike | None = None) -> SequenceLeaks:
    """Look for answers of a sequential test file in the histories of its other rows.

    Such a file has rows of a history and the item that follows it. Where it holds several rows a user, whoever learns
    item transitions from all histories has seen most answers.

    Parameters
    ----------
    histories : each row's items, in any form that `evaluate` takes as relevant. Order does not matter.
    targets : (n,) integer ids, the item that follows each history. One that is already in its own row's history counts
        only if it is in another row's too.
    users : (n,) ids that can be sorted; without them `same_user` stays None.

    Raises
    ------
    InvalidInput : unequal lengths, ids that are no integers, missing users.
    """
    answers = as_int64(targets, "targets")
    known = as_relevance(histories, len(answers), name="histories")
    rows, items = known.users_and_ids()
    item_codes, answer_codes = _joint_codes(items, answers, "items")
    width = 1 + max(item_codes.max(initial=-1), answer_codes.max(initial=-1))
    own = np.isin(np.arange(len(answers)) * width + answer_codes, rows * width + item_codes)

    def elsewhere(groups: Int64Array) -> BoolArray:
        """Whether a row of the same group, but not the row itself, has the answer in its history."""
        pairs, counts = np.unique(groups[rows] * width + item_codes, return_counts=True)
        sought = groups * width + answer_codes
        places = np.minimum(np.searchsorted(pairs, sought), max(len(pairs) - 1, 0))
        times = np.where(pairs[places] == sought, counts[places], 0) if len(pairs) else np.zeros(len(sought))
        found: BoolArray = np.asarray(times > own)
        return found

    same_user = None
    if users is not None:
        codes = np.unique(sort_key(users, "users"), return_inverse=True)[1].astype(np.int64)
        if len(codes) != len(answers):
            raise InvalidInput(f"users must have {len(answers)} values; got {len(codes)}")
        same_user = elsewhere(codes)
    return SequenceLeaks(same_user, elsewhere(np.zeros(len(answers), dtype=np.int64)))


def _joint_codes(first: ArrayLike, second: ArrayLike, name: str) -> tuple[Int64Array, Int64Array]:
    """Integers in the order of the values, the same for equal values of both columns."""
    columns: list[npt.NDArray[np.generic]] = [np.asarray(first), np.asarray(second)]
    for side, column in zip(("train", "test"), columns, strict=True):
        sort_key(column, f"{side}_{name}")  # refuses what is missing
    filled = [column for column in columns if len(column)]
    if len({_kind(column) for column in filled}) > 1:
        raise InvalidInput(f"{name} of both parts must be of one kind; got {columns[0].dtype} and {columns[1].dtype}")
    if not filled:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    codes = np.unique(np.concatenate(filled), return_inverse=True)[1].astype(np.int64)
    return codes[: len(columns[0])], codes[len(columns[0]) :]


def _kind(column: npt.NDArray[np.generic]) -> str:
    if column.dtype.kind in "biuf":
        return "numbers"
    return "times" if column.dtype.kind in "mM" else "texts or objects"


def _share(mask: BoolArray, what: str) -> str:
    return f"{int(mask.sum())} ({mask.mean() if len(mask) else 0.0:.1%}) {what}"
