"""The log: what comes back, what a crash may leave, what is damage, and a disk that is full."""

import resource
import signal

import pytest

from llmrec_fast.errors import CorruptFile, InvalidInput, LogWriteFailed
from llmrec_fast.recommender.log import LogWriter, check_policy, create_log, scan_log

RECORDS = [b"first", b"", b"x" * 1000, b"last \xf5\x9eLR with a marker inside"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "events.log"
    create_log(path, 3, 7)
    return path


def write(path, records, fsync="always"):
    writer = LogWriter(path, scan_log(path, 3), fsync)
    for record in records:
        writer.append([record])
    writer.close()


def offsets(path):
    return [record.offset for record in scan_log(path, 3).records]


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
def test_records_come_back_in_order_and_numbered(path, fsync):
    write(path, RECORDS[:2], fsync)
    write(path, RECORDS[2:], fsync)
    scan = scan_log(path, 3)
    assert [record.payload for record in scan.records] == RECORDS
    assert [record.sequence for record in scan.records] == [7, 8, 9, 10]
    assert scan.end == scan.size == path.stat().st_size


def test_a_log_cut_anywhere_loses_its_last_records_only(path):
    write(path, RECORDS)
    starts, whole = offsets(path), path.read_bytes()
    ends = [*starts[1:], len(whole)]
    for stop in range(starts[0], len(whole), 7):
        path.write_bytes(whole[:stop])
        scan = scan_log(path, 3)
        kept = sum(end <= stop for end in ends)
        assert [record.payload for record in scan.records] == RECORDS[:kept]
        assert scan.end == ([starts[0], *ends])[kept]


def test_a_torn_tail_is_overwritten_by_what_comes_next(path):
    write(path, RECORDS)
    path.write_bytes(path.read_bytes()[:-3])
    write(path, [b"after"])
    assert [record.payload for record in scan_log(path, 3).records] == [*RECORDS[:3], b"after"]


def test_any_flipped_byte_before_the_last_record_is_damage_with_its_offset(path):
    write(path, RECORDS)
    starts, whole = offsets(path), bytearray(path.read_bytes())
    for at in range(0, starts[-1], 5):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        begins = max([start for start in starts if start <= at], default=0)
        with pytest.raises(CorruptFile, match=f"{path.name} is damaged at byte {begins}:"):
            scan_log(path, 3)


def test_records_of_one_flush_may_reach_the_disk_in_any_order_before_a_crash(path):
    """None of them was durable when they were written, so an intact one behind a torn one is no damage."""
    write(path, [b"durable"])
    writer = LogWriter(path, scan_log(path, 3), "always")
    writer.append([b"torn", b"intact"])
    writer.close()
    torn = offsets(path)[1]
    data = bytearray(path.read_bytes())
    data[torn : torn + 20] = bytes(20)
    path.write_bytes(data)
    scan = scan_log(path, 3)
    assert [record.payload for record in scan.records] == [b"durable"]
    assert scan.end == torn


def test_a_log_of_another_generation_is_refused(path):
    with pytest.raises(CorruptFile, match="generation 3; expected 4"):
        scan_log(path, 4)
    with pytest.raises(CorruptFile, match="is missing"):
        scan_log(path.with_name("other.log"), 3)


def test_a_full_disk_refuses_the_record_and_leaves_the_log_whole(path):
    write(path, RECORDS)
    before = path.read_bytes()
    writer = LogWriter(path, scan_log(path, 3), "always")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
        with pytest.raises(LogWriteFailed, match="nothing was changed"):
            writer.append([b"small", b"y" * 500])
        assert path.read_bytes() == before
        writer.append([b"fits"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    writer.append([b"again"])
    writer.close()
    assert [record.payload for record in scan_log(path, 3).records] == [*RECORDS, b"fits", b"again"]


def test_an_unknown_policy_is_refused():
    with pytest.raises(InvalidInput, match="fsync must be one of always, interval, never"):
        check_policy("sometimes")
