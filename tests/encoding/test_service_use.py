"""Streaming, caching and dynamic batching: the same vectors as `encode`, bounded memory, and a clear end to every mishap."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec_fast.encoding import BatchingPolicy, Encoder, VectorCache, streaming
from llmrec_fast.encoding.dynamic_batching import DynamicBatcher
from llmrec_fast.errors import InvalidInput, Overloaded
from tests.encoding.tiny_models import WORDS, write_model

SAME = 1e-5


def some_texts(count: int) -> list[str]:
    return [
        " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 2 + number % 7)) for number in range(count)
    ]


@pytest.fixture(scope="module")
def encoder(bert: Path) -> Encoder:
    return Encoder(bert, threads=2)


# -- streaming ---------------------------------------------------------------------------------------------------------


def test_pieces_join_to_what_encode_gives(encoder: Encoder) -> None:
    texts = some_texts(25)
    pieces = list(encoder.encode_iter(iter(texts), texts_at_a_time=10))
    assert [len(piece) for piece in pieces] == [10, 10, 5]
    np.testing.assert_allclose(np.concatenate(pieces), encoder.encode(texts), atol=SAME, rtol=0)
    assert list(encoder.encode_iter([])) == []


def test_texts_are_taken_as_they_are_needed(encoder: Encoder) -> None:
    taken = []

    def source() -> Iterator[str]:
        for number in range(100):
            taken.append(number)
            yield f"snow {number}"

    next(encoder.encode_iter(source(), texts_at_a_time=10))
    assert len(taken) == 10


def test_memory_does_not_grow_with_the_number_of_texts(bert: Path, tmp_path: Path) -> None:
    # one thread: of several, each has working memory from its first batch on, whenever that comes
    encoder = Encoder(bert, threads=1)

    def peak(count: int) -> int:
        texts = (f"snow {WORDS[number % len(WORDS)]}" for number in range(count))
        tracemalloc.start()
        encoder.encode_to(tmp_path / "vectors.npy", texts, texts_at_a_time=100)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(100)  # what is loaded once
    count = 20_000
    # the interpreter's and Numba's lists of free objects fill up to some 150 KB
    assert peak(count) < count * encoder.dimension * 4 / 4


def test_a_file_holds_the_vectors_and_is_mapped(encoder: Encoder, tmp_path: Path) -> None:
    texts = some_texts(25)
    mapped = encoder.encode_to(tmp_path / "vectors.npy", texts, texts_at_a_time=7)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), encoder.encode(texts), atol=SAME, rtol=0)
    assert encoder.encode_to(tmp_path / "none.npy", []).shape == (0, encoder.dimension)
    assert np.load(tmp_path / "none.npy").shape == (0, encoder.dimension)


def test_an_error_on_the_way_leaves_the_old_file(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    encoder.encode_to(path, ["snow"])
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="lone surrogate"):
        encoder.encode_to(path, ["snow"] * 10 + ["\ud800"], texts_at_a_time=5)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_and_leaves_nothing(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = streaming.os.fdopen

    def full(descriptor: int, mode: str) -> Any:
        real(descriptor, mode).close()
        return Path("/dev/full").open(mode)

    monkeypatch.setattr(streaming.os, "fdopen", full)
    with pytest.raises(OSError, match="No space left") as caught:
        encoder.encode_to(tmp_path / "vectors.npy", some_texts(3000))
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["vectors.bin", "absent/vectors.npy"])
def test_a_path_that_cannot_be_is_refused(encoder: Encoder, tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInput, match=r"\.npy|cannot write"):
        encoder.encode_to(tmp_path / path, ["snow"])


def test_a_single_string_is_no_iterable_of_texts(encoder: Encoder) -> None:
    with pytest.raises(InvalidInput, match="single string"):
        encoder.encode_iter("snow")


# -- cache --------------------------------------------------------------------------------------------------------------


def counted(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    real = encoder._encode_distinct

    def encode(texts: list[str], skipped: int, show_progress: bool | None) -> Any:
        calls.append(texts)
        return real(texts, skipped, show_progress)

    monkeypatch.setattr(encoder, "_encode_distinct", encode)
    return calls


def test_no_text_is_encoded_twice(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Encoder(bert)
    first = Encoder(bert, cache=tmp_path)
    np.testing.assert_array_equal(first.encode(["snow", "man", "snow"]), plain.encode(["snow", "man", "snow"]))
    second = Encoder(bert, cache=VectorCache(tmp_path))
    calls = counted(second, monkeypatch)
    texts = ["man", "food", "snow"]
    np.testing.assert_allclose(second.encode(texts), plain.encode(texts), atol=SAME, rtol=0)
    assert calls == [["food"]]
    second.encode(texts)
    assert calls[1:] in ([], [[]])


def test_another_model_or_setting_has_other_vectors(bert: Path, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "cache")
    other = write_model(tmp_path / "other", "roberta")
    for options in ({}, {"pooling": "max"}, {"normalize": True}, {"max_length": 5}):
        text = ["the movie about space and time"]
        found = Encoder(bert, cache=cache, **options).encode(text)
        np.testing.assert_array_equal(found, Encoder(bert, **options).encode(text))
    np.testing.assert_array_equal(Encoder(other, cache=cache).encode(["snow"]), Encoder(other).encode(["snow"]))


def test_the_longest_unused_leave_first(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = VectorCache(tmp_path, max_vectors=2)
    encoder = Encoder(bert, cache=cache)
    encoder.encode(["snow"])
    encoder.encode(["man"])
    encoder.encode(["snow"])
    encoder.encode(["food"])
    assert len(cache) == 2
    calls = counted(encoder, monkeypatch)
    encoder.encode(["snow", "food", "man"])
    assert calls == [["man"]]


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InvalidInput, match="cannot be used"):
        VectorCache(tmp_path / "file")
    (tmp_path / "vectors.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(InvalidInput, match="damaged"):
        VectorCache(tmp_path)


def test_a_cache_that_fails_later_costs_only_the_cache(bert: Path, tmp_path: Path) -> None:
    encoder = Encoder(bert, cache=VectorCache(tmp_path))
    encoder.encode(["snow"])
    with encoder._cache._transaction() as database:  # type: ignore[union-attr]
        database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    texts = some_texts(400)
    with pytest.warns(RuntimeWarning, match="full"):
        found = encoder.encode(texts)
    np.testing.assert_allclose(found, Encoder(bert).encode(texts), atol=SAME, rtol=0)
    encoder.encode(texts)  # without a second warning


def test_processes_and_threads_share_a_cache(bert: Path, tmp_path: Path) -> None:
    script = (
        "import sys, threading; from llmrec_fast import Encoder\n"
        "encoder = Encoder(sys.argv[1], cache=sys.argv[2], threads=1)\n"
        "work = lambda: [encoder.encode([f'snow {n % 40}', 'man']) for n in range(60)]\n"
        "threads = [threading.Thread(target=work) for _ in range(3)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
    )
    words = [sys.executable, "-W", "error", "-c", script, str(bert), str(tmp_path)]
    processes = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(VectorCache(tmp_path)) == 41


# -- dynamic batching -----------------------------------------------------------------------------------------------------


def test_prompts_go_before_what_waits(bert: Path) -> None:
    encoder = Encoder(bert, prompts={"query": "a man ", "usual": "the movie "}, default_prompt_name="usual", threads=1)
    texts = ["snow", "space and time"]

    async def together() -> list[Any]:
        return await asyncio.gather(
            encoder.encode_async(texts),
            encoder.encode_query_async(texts),
            encoder.encode_async(texts, prompt_name="query"),
            encoder.encode_async(texts, prompt="bread "),
        )

    wanted = [
        encoder.encode([before + text for text in texts], prompt="") for before in ("the movie ", "a man ", "bread ")
    ]
    usual, query, by_name, by_text = asyncio.run(together())
    np.testing.assert_allclose([usual, query, by_text], wanted, atol=SAME, rtol=0)
    np.testing.assert_allclose(by_name, query, atol=SAME, rtol=0)
    with pytest.raises(InvalidInput, match="prompt_name 'other'"):
        encoder.submit(texts, prompt_name="other")


class Recorder:
    """An encode function that remembers its batches and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.started = threading.Event()
        self.gate.set()

    def __call__(self, texts: list[str]) -> Any:
        self.batches.append(texts)
        self.started.set()
        assert self.gate.wait(10)
        if "bad" in texts:
            raise ValueError("bad text")
        return np.array([[len(text)] for text in texts], np.float32)


def held(policy: BatchingPolicy) -> tuple[Recorder, DynamicBatcher, Future[Any]]:
    """A batcher whose worker is busy with one call until the gate opens."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = DynamicBatcher(recorder, policy)
    busy = batcher.submit(["busy"])
    assert recorder.started.wait(10)
    return recorder, batcher, busy


def test_calls_that_wait_together_share_a_batch() -> None:
    recorder, batcher, busy = held(BatchingPolicy(latency_budget=0))
    futures = [batcher.submit(["x" * size, "y"]) for size in range(1, 6)]
    recorder.gate.set()
    assert [future.result(10)[:, 0].tolist() for future in futures] == [[size, 1] for size in range(1, 6)]
    assert busy.result(10).tolist() == [[4]]
    assert [len(batch) for batch in recorder.batches] == [1, 10]


def test_a_batch_has_a_size_and_a_large_call_its_own() -> None:
    recorder, batcher, _ = held(BatchingPolicy(latency_budget=0, texts_per_batch=4))
    futures = [batcher.submit(["a"] * size) for size in (3, 1, 9, 2)]
    recorder.gate.set()
    assert [len(future.result(10)) for future in futures] == [3, 1, 9, 2]
    assert [len(batch) for batch in recorder.batches] == [1, 4, 9, 2]


def test_the_first_of_several_waits_for_the_others() -> None:
    recorder = Recorder()
    batcher = DynamicBatcher(recorder, BatchingPolicy(latency_budget=5, texts_per_batch=3))
    futures = [batcher.submit([text]) for text in ("a", "bb", "ccc")]  # the third fills the batch: no five seconds
    start = time.monotonic()
    assert [float(future.result(10)[0, 0]) for future in futures] == [1, 2, 3]
    assert time.monotonic() - start < 4
    assert recorder.batches == [["a", "bb", "ccc"]]


def test_an_error_concerns_its_own_call_alone() -> None:
    recorder, batcher, _ = held(BatchingPolicy(latency_budget=0))
    good, bad, better = (batcher.submit([text]) for text in ("good", "bad", "better"))
    recorder.gate.set()
    assert good.result(10).tolist() == [[4]]
    assert better.result(10).tolist() == [[6]]
    with pytest.raises(ValueError, match="bad text"):
        bad.result(10)


def test_a_cancelled_call_is_not_encoded() -> None:
    recorder, batcher, busy = held(BatchingPolicy(latency_budget=0))
    kept, dropped = batcher.submit(["kept"]), batcher.submit(["dropped"])
    assert dropped.cancel()
    assert not busy.cancel()  # its batch has started
    recorder.gate.set()
    assert kept.result(10).tolist() == [[4]]
    with pytest.raises(CancelledError):
        dropped.result(10)
    assert recorder.batches == [["busy"], ["kept"]]


def test_too_much_waiting_work_is_refused() -> None:
    recorder, batcher, _ = held(BatchingPolicy(latency_budget=0, waiting_texts=3))
    taken = batcher.submit(["a", "b"])
    with pytest.raises(Overloaded, match="2 texts wait"):
        batcher.submit(["c", "d"])
    last = batcher.submit(["c"])
    recorder.gate.set()
    assert (len(taken.result(10)), len(last.result(10))) == (2, 1)
    assert len(batcher.submit(["e"] * 9).result(10)) == 9  # nothing waits: a large call is taken


def test_a_worker_ends_when_idle_and_another_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrec_fast.encoding.dynamic_batching._IDLE_SECONDS", 0.01)
    batcher = DynamicBatcher(Recorder(), BatchingPolicy())
    for _ in range(3):
        assert batcher.submit(["a"]).result(10).tolist() == [[1]]
        deadline = time.monotonic() + 10
        while any(thread.name == "llmrec_fast-batching" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.mark.parametrize("options", [{"latency_budget": -1}, {"texts_per_batch": 0}, {"waiting_texts": 0}])
def test_a_policy_checks_its_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        BatchingPolicy(**options)


def test_submitted_texts_are_checked_at_once(encoder: Encoder) -> None:
    with pytest.raises(InvalidInput, match="lone surrogate"):
        encoder.submit(["snow", "\udc00"])
    with pytest.raises(InvalidInput, match="single string"):
        encoder.submit("snow")
    assert encoder.submit([]).result(10).shape == (0, encoder.dimension)


def test_many_asyncio_callers_get_their_own_vectors(encoder: Encoder) -> None:
    texts = some_texts(200)
    wanted = encoder.encode(texts)

    async def main() -> list[Any]:
        return await asyncio.gather(*(encoder.encode_async([text]) for text in texts))

    found = np.concatenate(asyncio.run(main()))
    np.testing.assert_allclose(found, wanted, atol=SAME, rtol=0)


def test_tasks_share_a_batch_that_a_cancelled_one_has_left() -> None:
    recorder, batcher, _ = held(BatchingPolicy(latency_budget=0, waiting_texts=5))

    async def call(text: str) -> Any:
        future = asyncio.get_running_loop().create_future()
        batcher.put([text], future)
        return await future

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(call(text)) for text in ("a", "bb", "dropped", "bad", "cccc", "one too many")]
        await asyncio.sleep(0)
        tasks[2].cancel()
        recorder.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, dropped, bad, last, refused = asyncio.run(main())
    assert [first.tolist(), second.tolist(), last.tolist()] == [[[1]], [[2]], [[4]]]
    assert isinstance(dropped, asyncio.CancelledError)
    assert isinstance(bad, ValueError)
    assert isinstance(refused, Overloaded)
    assert recorder.batches[1] == ["a", "bb", "bad", "cccc"]


def test_cancelling_a_task_withdraws_its_call(bert: Path) -> None:
    encoder = Encoder(bert, batching=BatchingPolicy(latency_budget=5))

    async def main() -> None:
        task = asyncio.create_task(encoder.encode_async(["snow"]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    start = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - start < 4


def test_warmup_leaves_an_encoder_that_answers(encoder: Encoder) -> None:
    encoder.warmup()
    assert encoder.encode(["snow"]).shape == (1, encoder.dimension)
