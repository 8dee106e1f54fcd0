"""Saving is atomic and checked: a crash leaves the old index, and a damaged file is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.retrieval import Index

G = np.random.default_rng(0)
ROWS = G.standard_normal((5000, 24)).astype(np.float32)


def assert_same(left: Index, right: Index) -> None:
    np.testing.assert_array_equal(left.ids, right.ids)
    ours, theirs = left.search(ROWS[:5], 20), right.search(ROWS[:5], 20)
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def make(metric: str = "cosine") -> Index:
    bias = None if metric == "euclidean" else G.standard_normal(5000).astype(np.float32)
    index = Index.build(ROWS, ids=np.arange(5000) * 3, bias=bias, metric=metric)  # type: ignore[arg-type]
    index.add(ROWS[:200] + 1)
    index.remove(index.ids[10:400:3])
    return index


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_what_was_saved_is_loaded(tmp_path: Path, metric: str, mmap: bool) -> None:
    index = make(metric)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index", mmap=mmap, verify=True)
    assert (loaded.dim, loaded.metric, len(loaded)) == (index.dim, index.metric, len(index))
    assert_same(index, loaded)
    for each in (index, loaded):
        each.upsert(ROWS[:50] * 2, ids=each.ids[:50])
        each.add(ROWS[50:60])
    assert_same(index, loaded)
    loaded.optimize()
    assert_same(index, loaded)
    loaded.save(tmp_path / "index")  # over the files that it has mapped
    assert_same(index, Index.load(tmp_path / "index"))


def test_empty_and_unfitted_indexes_are_saved_too(tmp_path: Path) -> None:
    for index in (Index(24, "dot"), Index.build(ROWS[:100], metric="dot")):
        index.save(tmp_path / "index")
        assert_same(index, Index.load(tmp_path / "index", mmap=True))
    assert len(list((tmp_path / "index").iterdir())) == 5  # what the first save wrote is gone


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_building_on_disk_equals_building_in_memory(tmp_path: Path, metric: str) -> None:
    np.save(tmp_path / "vectors.npy", ROWS)
    vectors = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    bias = None if metric == "euclidean" else np.linspace(0, 1, 5000)
    on_disk = Index.build(vectors, bias=bias, metric=metric, path=tmp_path / "index")  # type: ignore[arg-type]
    in_memory = Index.build(ROWS, bias=bias, metric=metric)  # type: ignore[arg-type]
    assert_same(on_disk, in_memory)
    assert_same(on_disk, Index.load(tmp_path / "index", mmap=True, verify=True))
    on_disk.add(ROWS[:5])
    in_memory.add(ROWS[:5])
    assert_same(on_disk, in_memory)


def test_building_on_disk_from_bad_rows_names_them_and_saves_nothing(tmp_path: Path) -> None:
    bad = ROWS.copy()
    bad[4321, 3] = np.inf
    with pytest.raises(InvalidInput, match="infinite"):
        Index.build(bad, metric="dot", path=tmp_path / "index")
    with pytest.raises(CorruptFile, match="no saved index"):
        Index.load(tmp_path / "index")


def test_a_flipped_byte_in_any_file_is_found_and_the_file_named(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    make().save(folder)
    files = sorted(folder.iterdir())
    assert len(files) >= 10
    for file in files:
        content = file.read_bytes()
        for at in {0, 1, 8, len(content) // 2, len(content) - 1, int(G.integers(len(content)))}:
            damaged = bytearray(content)
            damaged[at] ^= 0x11
            file.write_bytes(damaged)
            with pytest.raises(CorruptFile, match=file.name):
                Index.load(folder, verify=True)
            with pytest.raises(CorruptFile, match=file.name):
                Index.load(folder, mmap=True, verify=True)
        file.write_bytes(content[:-1])
        with pytest.raises(CorruptFile, match=file.name):
            Index.load(folder, verify=False)
        file.unlink()
        with pytest.raises(CorruptFile, match=file.name):
            Index.load(folder)
        file.write_bytes(content)
    Index.load(folder, verify=True)


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("llmrec_fast.folders.VERSION", 99)
        make().save(tmp_path / "index")
    with pytest.raises(CorruptFile, match="version 99"):
        Index.load(tmp_path / "index")


def test_foreign_folders_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInput, match="thesis"):
        make().save(tmp_path)
    with pytest.raises(InvalidInput, match="not a folder"):
        make().save(tmp_path / "thesis.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


_SAVE_FOREVER = """
import sys
import numpy as np
from llmrec_fast.retrieval import Index
rows = np.random.default_rng(1).standard_normal((3000, 24)).astype(np.float32)
indexes = [Index.build(rows[: 1000 * count], metric="dot") for count in (1, 2, 3)]
print("ready", flush=True)
while True:
    for index in indexes:
        index.save(sys.argv[1])
        print(len(index), flush=True)
"""


def test_a_save_killed_at_any_moment_leaves_an_index(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Index.build(ROWS[:1000], metric="dot").save(folder)
    for delay in G.uniform(0.0, 0.08, 8):
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVE_FOREVER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        loaded = Index.load(folder, verify=True)
        assert len(loaded) in (1000, 2000, 3000)
        assert loaded.search(loaded.vectors(loaded.ids[:1]), 1).ids.shape == (1, 1)
