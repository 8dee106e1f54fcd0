"""Offline evaluation: its optional rows are there where their packages are, and say how to get them where they are not."""

import sys

import pytest

from llmrec_fast.features import read_interactions, read_items
from llmrec_fast.offline import evaluate_offline, format_rows
from llmrec_fast.ranking.adapter import AdapterSettings

from .recommender.conftest import bag_of_words, interaction_table, item_table

SMALL = AdapterSettings(dimension=4, hidden=4, epochs=1, batch=64)


class Words:
    def encode(self, texts):
        return bag_of_words(texts)


def measure(**options):
    items = read_items(item_table())
    interactions = read_interactions(interaction_table(), known_items=items.ids)
    return evaluate_offline(items, interactions, Words(), liked_from=4, metrics=("recall@3",), rerank=False, **options)


def test_the_adapter_has_a_row_and_a_time_and_shows_no_bar_off_a_terminal(capfd):
    pytest.importorskip("torch")
    result = measure(adapter=SMALL)
    assert list(result.rows) == ["popularity", "text", "collaborative", "adapter", "fused"]
    assert result.row_seconds["adapter"] == pytest.approx(result.seconds["adapt"], rel=0.1)
    assert result.rows["adapter"]["recall@3"] > 0
    table = format_rows(result.rows, result.row_seconds).splitlines()
    assert table[0].split() == ["row", "recall@3", "seconds"]
    assert len(table) == 2 + len(result.rows)
    assert capfd.readouterr().err == ""


def test_a_bar_is_shown_where_it_is_asked_for(capfd):
    pytest.importorskip("torch")
    measure(adapter=SMALL, show_progress=True)
    assert "adapter" in capfd.readouterr().err


def test_without_torch_it_says_which_command_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = measure(adapter=SMALL)
    assert "adapter" not in result.rows
    assert "pip install 'llmrec-fast[train]'" in result.left_out["adapter"]


def test_without_settings_there_is_no_adapter():
    result = measure()
    assert "adapter" not in result.rows
    assert result.left_out == {}
