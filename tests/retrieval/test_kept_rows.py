"""`Index.build(copy=False)` holds the caller's array: same answers, no second copy, and a clear refusal otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval import Index

# rows of noise are the hardest to fit: the widest codes
_PEAK = """
import sys, threading, time
from pathlib import Path
import numpy as np
from llmrec_fast.retrieval import Index, warmup

def own_memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024

warmup()
start = own_memory()
rows = np.random.default_rng(0).standard_normal((320_000, 256), dtype=np.float32)
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], own_memory())

thread = threading.Thread(target=watch)
thread.start()
index = Index.build(rows, metric="dot", copy=False)
done.set()
thread.join()
assert (index.search(rows[:3], 1).ids[:, 0] == [0, 1, 2]).all()
print((max(peak[0], own_memory()) - start) / rows.nbytes)
"""


def rows_of(count: int, dim: int = 24) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).standard_normal((count, dim), dtype=np.float32)


@pytest.mark.parametrize("count", [0, 1, 500, 6000])
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("writable", [True, False])
def test_answers_are_those_of_an_index_with_a_copy(count: int, metric: Any, writable: bool) -> None:
    rows, queries = rows_of(count), rows_of(7)
    rows.flags.writeable = writable
    ids = np.arange(count) * 3 + 5
    kept, copied = (Index.build(rows, ids, metric=metric, copy=copy) for copy in (False, True))
    for index in (kept, copied):
        if count > 1:
            index.remove([8])
        index.add(queries[:2], [1, 2])
    for _ in range(2):
        ours, theirs = kept.search(queries, 9), copied.search(queries, 9)
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        kept.optimize()
        copied.optimize()
    assert rows.flags.writeable == writable
    np.testing.assert_array_equal(rows, rows_of(count))


def test_the_array_itself_is_kept(tmp_path: Path) -> None:
    rows = rows_of(5000)
    index = Index.build(rows, metric="dot", copy=False)
    assert np.shares_memory(index._snapshot.segments[0].rows, rows)
    index.optimize()
    assert np.shares_memory(index._snapshot.segments[0].rows, rows)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    np.testing.assert_array_equal(loaded.search(rows[:5], 4).ids, index.search(rows[:5], 4).ids)


def test_a_bias_counts() -> None:
    rows = rows_of(5000)
    bias = np.zeros(5000, np.float32)
    bias[123] = 1e3
    index = Index.build(rows, bias=bias, metric="dot", copy=False)
    bias[123] = 0  # only the vectors are shared
    assert index.search(rows[:2], 1).ids.tolist() == [[123], [123]]


@pytest.mark.parametrize(
    ("vectors", "options", "message"),
    [
        (rows_of(9).astype(np.float64), {}, "float64"),
        (np.asfortranarray(rows_of(9)), {}, "C-contiguous"),
        (rows_of(9)[:, ::2], {}, "strides"),
        (rows_of(9).tolist(), {}, "list"),
        (rows_of(9).astype(">f4"), {}, "float32|byte order"),
        (rows_of(9), {"metric": "cosine"}, "use 'dot'"),
        (rows_of(9), {"path": "somewhere"}, "leave one of the two out"),
        (np.full((3, 4), np.nan, np.float32), {}, "NaN in row 0"),
        (rows_of(9), {"ids": [1] * 9}, "distinct"),
    ],
)
def test_what_cannot_be_kept_is_refused(vectors: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Index.build(vectors, copy=False, **{"metric": "dot", **options})


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the process's memory from /proc")
def test_the_whole_process_stays_below_1_6_times_the_rows() -> None:
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1.2 < float(done.stdout) < 1.6
