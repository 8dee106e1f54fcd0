"""A recommender that is open on a folder: what it wrote is there after a close, a crash, a kill, and a compaction."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from llmrec_fast import Recommender
from llmrec_fast.errors import CorruptFile, InvalidInput, LogWriteFailed, UnknownId
from llmrec_fast.recommender import storage
from llmrec_fast.recommender.log import LogWriter

from .conftest import bag_of_words, interaction_table, item_table

ROOT, WRITER = Path(__file__).parents[2], Path(__file__).parent / "crash_writer.py"


@pytest.fixture
def folder(tmp_path):
    model = Recommender(bag_of_words, weights={"text": 1, "collaborative": 0.5, "popularity": 0.1}, decay=5.0)
    model.fit(item_table(), interaction_table()).save(tmp_path / "live")
    return tmp_path / "live"


def reopen(folder, **options):
    return Recommender.open(folder, encoder=bag_of_words, **options)


def change_everything(recommender):
    recommender.record(np.int64(0), "i9", 2, timestamp=100)
    recommender.record_many(["ann", "bob", "ann"], ["i0", "i5", "i1"])
    recommender.remove_items(["i2"])
    recommender.upsert_items({"id": ["i3", "new"], "text": ["hand saw tool", "wine"], "title": ["Saw", "\ud800"]})
    recommender.record("ann", "new")
    recommender.upsert_items({"id": ["i2"], "text": ["white wine"]})
    recommender.record("bob", "i2")


def assert_same(one, other):
    assert one.user_ids == other.user_ids
    assert set(one.item_ids) == set(other.item_ids)
    assert [one.history(user) for user in one.user_ids] == [other.history(user) for user in one.user_ids]
    mine, theirs = (each.recommend(one.user_ids, len(one.item_ids), filter_seen=False) for each in (one, other))
    assert mine.items.tolist() == theirs.items.tolist()
    np.testing.assert_array_equal(mine.scores, theirs.scores)
    assert [one.title(item) for item in one.item_ids] == [other.title(item) for item in one.item_ids]


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_everything_written_is_there_when_it_is_opened_again(folder, fsync):
    with reopen(folder, fsync=fsync) as recommender:
        change_everything(recommender)
    with reopen(folder) as again:
        assert_same(again, recommender)
        assert again.recovery_.replayed == 7
        assert again.recovery_.cut_file is None


def test_compaction_keeps_everything_and_empties_the_log(folder):
    with reopen(folder) as recommender:
        change_everything(recommender)
        recommender.compact()
        recommender.record("eve", "i0")
        with reopen_copy(folder) as copied:
            assert_same(copied, recommender)
    logs = list(folder.glob("events-*.log"))
    assert [log.name for log in logs] == ["events-00000001.log"]
    with reopen(folder) as again:
        assert_same(again, recommender)
        assert again.recovery_.replayed == 1


def reopen_copy(folder):
    """What would be there if the machine went down now."""
    target = folder.with_name("copy")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return reopen(target)


def test_a_folder_that_took_the_name_is_left_alone(folder):
    other, moved = folder.with_name("other"), folder.with_name("moved")
    shutil.copytree(folder, other)
    with reopen(folder) as recommender:
        recommender.record("ann", "i0")
        folder.rename(moved)
        with pytest.raises(LogWriteFailed, match="no longer the folder that was opened"):
            recommender.compact()
        other.rename(folder)
        files = sorted(folder.iterdir())
        with pytest.raises(LogWriteFailed, match="no longer the folder that was opened"):
            recommender.compact()
        assert sorted(folder.iterdir()) == files
        recommender.record("ann", "i1")
    with reopen(moved) as again:
        assert again.history("ann") == ["i0", "i1"]


@pytest.mark.parametrize("step", ["save", "forget"])
def test_a_compaction_that_dies_midway_neither_loses_nor_repeats(folder, monkeypatch, step):
    class Died(Exception):
        pass

    def die(*_):
        raise Died

    recommender = reopen(folder)
    change_everything(recommender)
    with monkeypatch.context() as patch:
        if step == "save":
            patch.setattr(storage, "save", die)
        else:
            patch.setattr(recommender._writing.journal, "forget_before", die)
        with pytest.raises(Died):
            recommender.compact()
    recommender.record("after", "i0")
    assert len(list(folder.glob("events-*.log"))) == 2
    with reopen_copy(folder) as copied:
        assert_same(copied, recommender)
        assert copied.recovery_.replayed == (8 if step == "save" else 1)
    recommender.compact()
    recommender.close()
    with reopen(folder) as again:
        assert_same(again, recommender)
        assert again.recovery_.replayed == 0


def test_the_log_is_compacted_in_the_background(folder):
    with reopen(folder, compact_bytes=2000) as recommender:
        for turn in range(100):
            recommender.record(f"u{turn % 7}", f"i{turn % 10}")
        deadline = time.monotonic() + 5
        while (folder / "events-00000000.log").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not (folder / "events-00000000.log").exists()
    with reopen(folder) as again:
        assert_same(again, recommender)


def test_a_torn_tail_is_cut_and_reported(folder):
    with reopen(folder) as recommender:
        recommender.record("ann", "i0")
        before = recommender.snapshot()
        recommender.record("ann", "i1")
    log = folder / "events-00000000.log"
    log.write_bytes(log.read_bytes()[:-3])
    with pytest.warns(RuntimeWarning, match="was torn by a crash"):
        again = reopen(folder)
    with again:
        assert_same(again, before)
        assert again.recovery_.cut_file == log
        assert again.recovery_.cut_bytes > 0
        assert again.recovery_.cut_at == log.stat().st_size


def test_damage_elsewhere_is_refused_with_its_offset(folder):
    with reopen(folder) as recommender:
        for item in ("i0", "i1", "i2"):
            recommender.record("ann", item)
    log = folder / "events-00000000.log"
    data = bytearray(log.read_bytes())
    data[70] ^= 1
    log.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"events-00000000\.log is damaged at byte 30"):
        reopen(folder)
    data[70] ^= 1
    log.write_bytes(data)
    reopen(folder).close()


def test_a_full_disk_refuses_the_event_and_changes_nothing(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with reopen(folder) as recommender:
        recommender.record("ann", "i0")
        with monkeypatch.context() as patch:
            patch.setattr(LogWriter, "_write", full)
            for call in (
                lambda: recommender.record("ann", "i1"),
                lambda: recommender.record("bob", "i1"),
                lambda: recommender.remove_items(["i1"]),
                lambda: recommender.upsert_items({"id": ["new"], "text": ["wine"]}),
            ):
                with pytest.raises(LogWriteFailed, match="No space left on device; nothing was changed"):
                    call()
        assert recommender.history("ann") == ["i0"]
        assert "bob" not in recommender.user_ids
        assert recommender.item_ids == [f"i{n}" for n in range(10)]
        recommender.record("bob", "i1")
    with reopen(folder) as again:
        assert_same(again, recommender)


def test_what_is_refused_is_not_logged(folder):
    with reopen(folder) as recommender:
        with pytest.raises(UnknownId):
            recommender.record("ann", "nowhere")
        with pytest.raises(InvalidInput, match="must be str, int or UUID"):
            recommender.record(("a", 1), "i0")
    with reopen(folder) as again:
        assert again.recovery_.replayed == 0


def test_one_at_a_time_may_have_a_folder_open(folder):
    with reopen(folder) as recommender:
        with pytest.raises(InvalidInput, match="is open already"):
            reopen(folder)
        with pytest.raises(InvalidInput, match="is open on a folder"):
            recommender.fit(item_table(), interaction_table())
        with pytest.raises(InvalidInput, match="holds a log of events"):
            recommender.save(folder)
        assert Recommender.load(folder, encoder=bag_of_words).user_ids == recommender.user_ids
    recommender.close()
    assert len(recommender.recommend([0], 3)[0]) == 3
    with pytest.raises(InvalidInput, match="has been closed"):
        recommender.record("ann", "i0")


def test_a_folder_is_made_from_a_fitted_recommender_once(folder):
    model, target = Recommender.load(folder, encoder=bag_of_words), folder.with_name("fresh")
    for turn in range(2):
        with Recommender.open(target, encoder=bag_of_words, create_from=model) as recommender:
            recommender.record("ann", f"i{turn}")
    assert recommender.history("ann") == ["i0", "i1"]
    with pytest.raises(CorruptFile, match="no saved recommender"):
        reopen(folder.with_name("nowhere"))
    with pytest.raises(InvalidInput, match="not open on a folder"):
        model.compact()


def write_in_threads(recommender, threads, turns):
    """Each thread records `turns` events for a user of its own."""
    start = threading.Barrier(threads)

    def write(thread):
        start.wait()
        for turn in range(turns):
            recommender.record(f"t{thread}", f"i{turn % 10}")

    workers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_threads_that_write_at_once_share_flushes_and_lose_nothing(folder, monkeypatch):
    flushes = []
    append = LogWriter.append

    def slow_append(self, records):
        flushes.append(len(records))
        time.sleep(0.005)
        append(self, records)

    monkeypatch.setattr(LogWriter, "append", slow_append)
    with reopen(folder) as recommender:
        write_in_threads(recommender, threads=16, turns=10)
        assert sum(flushes) == 160
        # whoever is written is back in time for the next flush but one
        assert len(flushes) < 160 / 4
    with reopen(folder) as again:
        assert_same(again, recommender)


@pytest.mark.parametrize("waiting", [True, False], ids=["who waits", "who was to lead"])
def test_an_interrupted_thread_holds_nobody_up(folder, monkeypatch, waiting):
    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            if not waiting:
                super().wait(timeout)
            raise KeyboardInterrupt

    begun, free = threading.Event(), threading.Event()
    append = LogWriter.append

    def held_append(self, records):
        begun.set()
        free.wait(20)
        append(self, records)

    with reopen(folder) as recommender:
        monkeypatch.setattr(LogWriter, "append", held_append)
        first = threading.Thread(target=recommender.record, args=("first", "i0"))
        first.start()
        begun.wait(20)
        with monkeypatch.context() as patch:
            patch.setattr("llmrec_fast.recommender.writing.Event", Interrupted)
            outcome = []

            def interrupted():
                with pytest.raises(KeyboardInterrupt):
                    recommender.record("interrupted", "i0")
                outcome.append(True)

            second = threading.Thread(target=interrupted)
            second.start()
            while not outcome and (waiting or not recommender._writing._waiting):
                time.sleep(0.001)
        third = threading.Thread(target=recommender.record, args=("third", "i0"))
        third.start()
        free.set()
        for thread in (first, second, third):
            thread.join(20)
            assert not thread.is_alive()
        recommender.record("last", "i0")
        assert not recommender.knows_user("interrupted")
        assert all(recommender.knows_user(user) for user in ("first", "third", "last"))
        assert outcome


@pytest.mark.parametrize(("threads", "compact"), [(1, ""), (16, "compact")])
def test_a_killed_process_keeps_every_acknowledged_event(folder, threads, compact):
    acknowledged = []
    for wait in (0.02, 0.15):
        with subprocess.Popen(
            [sys.executable, str(WRITER), str(folder), str(threads), compact],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as process:
            acknowledged.append(process.stdout.readline())
            time.sleep(wait)
            process.kill()
            acknowledged += process.stdout.readlines()
    whole = [line.split() for line in acknowledged if line.endswith("\n")]
    assert len(whole) > 4
    with reopen(folder) as recommender:
        for user, item in whole:
            assert item in recommender.history(user)
