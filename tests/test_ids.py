from uuid import UUID

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput, UnknownId
from llmrec_fast.ids import IdTable

MIXED = ["a", 7, "7", UUID(int=5), -1]


def test_ids_of_any_kind_go_to_positions_and_back():
    table = IdTable(MIXED)
    assert table.positions(MIXED).tolist() == [0, 1, 2, 3, 4]
    assert table.at(np.array([[4, 0], [-1, 2]])).tolist() == [[-1, "a"], [None, "7"]]
    assert list(table) == MIXED


def test_numpy_scalars_are_the_ids_that_they_equal():
    table = IdTable(np.array([3, 5]))
    assert table.position(np.int32(5)) == 1
    assert np.int64(3) in table
    assert IdTable(np.array(["x"])).position("x") == 0


def test_an_unknown_id_is_named_and_a_mixed_up_type_is_hinted_at():
    table = IdTable([7, "x"], kind="user")
    with pytest.raises(UnknownId, match=r"unknown user 'y' \(of 2 known\)$"):
        table.position("y")
    with pytest.raises(UnknownId, match=r"7 \(int\) is known"):
        table.position("7")
    with pytest.raises(UnknownId, match=r"unknown user \(1, 2\)"):
        table.positions([7, (1, 2)])


@pytest.mark.parametrize("ids", [["a", "a"], [1, np.int64(1)], ["b", "old"], [None], [[1]]])
def test_a_refused_extension_changes_nothing(ids):
    table = IdTable(["old"])
    with pytest.raises(InvalidInput):
        table.extend(ids)
    assert list(table) == ["old"]


def test_one_string_is_not_a_sequence_of_ids():
    with pytest.raises(InvalidInput, match=r"pass \['abc'\]"):
        IdTable("abc").positions("abc")


def test_json_gives_the_same_table_back():
    assert list(IdTable.from_json(IdTable(MIXED).to_json())) == MIXED
    with pytest.raises(InvalidInput, match="must be str, int or UUID; got tuple"):
        IdTable([(1, 2)]).to_json()
