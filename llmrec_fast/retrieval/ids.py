"""Which row holds an external id: an immutable map that grows by sorted runs.

A snapshot of the index owns one `IdMap`; adding ids makes a new map that shares the old runs. Runs merge when the newest is at
least half as long as the one before it, so there are O(log n) of them and an id is copied O(log n) times. It knows nothing
of deletion: a removed id stays until `compacted`, and whoever asks checks that the row is live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import Int64Array


@dataclass(frozen=True)
class _Run:
    """Ids in ascending order with their rows. `ids` is None for the consecutive ids first .. first + count."""

    first: int
    count: int
    first_row: int
    ids: Int64Array | None = None
    rows: Int64Array | None = None

    def arrays(self) -> tuple[Int64Array, Int64Array]:
        if self.ids is not None and self.rows is not None:
            return self.ids, self.rows
        steps = np.arange(self.count, dtype=np.int64)
        return steps + self.first, steps + self.first_row

    def find(self, wanted: Int64Array) -> Int64Array:
        if self.ids is None or self.rows is None:
            offset = wanted - self.first
            inside = (offset >= 0) & (offset < self.count)
            return np.where(inside, offset + self.first_row, -1)
        at = np.searchsorted(self.ids, wanted)
        at[at == self.count] = 0
        return np.where(self.ids[at] == wanted, self.rows[at], -1)


class IdMap:
    """Immutable map from external id (int64) to row; the row added last wins."""

    def __init__(self, runs: tuple[_Run, ...] = ()) -> None:
        self._runs = runs

    def find(self, wanted: Int64Array) -> Int64Array:
        """The row of each id, -1 where it is unknown. Costs a binary search per id and run."""
        rows = np.full(len(wanted), -1, np.int64)
        for run in reversed(self._runs):
            if len(self._runs) == 1:
                return run.find(wanted)
            missing = rows < 0
            rows[missing] = run.find(wanted[missing])
        return rows

    def added(self, ids: Int64Array, first_row: int) -> IdMap:
        """This map with `ids` in rows first_row, first_row + 1, ..."""
        if len(ids) == 0:
            return self
        run = _make_run(ids, first_row)
        runs = list(self._runs)
        while runs and 2 * run.count >= runs[-1].count:
            run = _merge(runs.pop(), run)
        return IdMap((*runs, run))

    def arrays(self) -> Iterator[tuple[Int64Array, Int64Array]]:
        """(ids, rows) of every run, oldest first."""
        return (run.arrays() for run in self._runs)


def _make_run(ids: Int64Array, first_row: int) -> _Run:
    first, count = int(ids[0]), len(ids)
    if int(ids[-1]) - first == count - 1 and (np.diff(ids) == 1).all():
        return _Run(first, count, first_row)
    order = np.argsort(ids, kind="stable")
    return _Run(int(ids[order[0]]), count, first_row, ids[order], order + first_row)


def _merge(old: _Run, new: _Run) -> _Run:
    follows = new.first == old.first + old.count and new.first_row == old.first_row + old.count
    if old.ids is None and new.ids is None and follows:
        return _Run(old.first, old.count + new.count, old.first_row)
    old_ids, old_rows = old.arrays()
    new_ids, new_rows = new.arrays()
    ids = np.concatenate([old_ids, new_ids])
    rows = np.concatenate([old_rows, new_rows])
    order = np.lexsort((rows, ids))
    ids, rows = ids[order], rows[order]
    last = np.append(ids[1:] != ids[:-1], True)  # an id added again lies in a later row
    ids, rows = np.ascontiguousarray(ids[last]), np.ascontiguousarray(rows[last])
    return _Run(int(ids[0]), len(ids), 0, ids, rows)
