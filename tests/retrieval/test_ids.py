"""The id map answers like a dictionary, whatever the order and overlap of what is added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.retrieval.ids import IdMap

BATCHES = st.lists(
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20),
        st.lists(st.integers(0, 30), unique=True, max_size=20),
        st.integers(0, 40).flatmap(lambda start: st.integers(0, 30).map(lambda n: list(range(start, start + n)))),
    ),
    max_size=12,
)


@given(BATCHES, st.lists(st.integers(-3, 80), max_size=20))
def test_the_row_added_last_wins(batches: list[list[int]], wanted: list[int]) -> None:
    id_map, expected, row = IdMap(), {}, 0
    for batch in batches:
        before, known = id_map, dict(expected)
        id_map = id_map.added(np.array(batch, np.int64), row)
        expected |= {item: row + place for place, item in enumerate(batch)}
        row += len(batch)
        everything = np.array([*expected, *wanted], np.int64)
        assert id_map.find(everything).tolist() == [expected.get(item, -1) for item in everything.tolist()]
        assert before.find(everything).tolist() == [known.get(item, -1) for item in everything.tolist()]


def test_consecutive_ids_take_no_memory() -> None:
    id_map = IdMap()
    for start in range(0, 1000, 10):
        id_map = id_map.added(np.arange(start, start + 10), start)
    assert all(run.ids is None for run in id_map._runs)
    assert len(id_map._runs) <= 11
