"""An append-only log of records that survives crashes. Knows nothing of what the records say.

A file is a header (magic, generation, number of its first record, CRC-32) and frames, one a record:

    marker | length | sequence | durable | CRC-32 of the payload | CRC-32 of the frame's header | payload

Sequence numbers rise by one, over all generations. `durable` is the number of the last record that was known to be on disk
when the frame was written. It tells the two kinds of damage apart: what a crash can leave is a tail of records of which none
was reported durable, and that is cut off; a record that a later frame calls durable and that cannot be read is damage, and
is refused with its offset.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from llmrec_fast.errors import CorruptFile, InvalidInput, LogWriteFailed

FsyncPolicy: TypeAlias = Literal["always", "interval", "never"]

INTERVAL_SECONDS = 0.1
_MAGIC = b"llmreclog1"
_FILE = struct.Struct("<10sQQI")
_FRAME = struct.Struct("<4sIQQII")
_MARKER = b"\xf5\x9eLR"
_LARGEST = 2**31


@dataclass(frozen=True)
class Record:
    """A record that was read: its sequence number, where its frame begins, and what was written."""

    sequence: int
    offset: int
    payload: bytes


@dataclass(frozen=True)
class Scan:
    """What a log file holds.

    Attributes
    ----------
    first : the sequence number of its first record.
    records : the whole ones, in order.
    end : offset behind the last of them.
    size : bytes of the file; more than `end` if a crash tore the tail.
    """

    first: int
    records: list[Record]
    end: int
    size: int


def check_policy(fsync: str) -> FsyncPolicy:
    """`fsync` as a policy; raises `InvalidInput`."""
    for policy in get_args(FsyncPolicy):
        if policy == fsync:
            return policy  # type: ignore[no-any-return]
    raise InvalidInput(f"fsync must be one of {', '.join(get_args(FsyncPolicy))}; got {fsync!r}")


def create_log(path: Path, generation: int, first: int) -> None:
    """Make an empty log; it is there wholly or not at all."""
    temporary = path.with_suffix(".new")
    head = _FILE.pack(_MAGIC, generation, first, 0)[:-4]
    with temporary.open("wb") as file:
        file.write(head + struct.pack("<I", zlib.crc32(head)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def scan_log(path: Path, generation: int) -> Scan:
    """Read a log; raises `CorruptFile`, with the offset, for damage that no crash leaves."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptFile(f"{path} is missing: the saved recommender beside it needs this log") from error
    if len(data) < _FILE.size or zlib.crc32(data[: _FILE.size - 4]) != _FILE.unpack_from(data)[3]:
        raise CorruptFile(f"{path} is damaged at byte 0: its header cannot be read")
    magic, found, first, _ = _FILE.unpack_from(data)
    if magic != _MAGIC or found != generation:
        raise CorruptFile(f"{path} is damaged at byte 0: it says {magic!r}, generation {found}; expected {generation}")
    records: list[Record] = []
    offset = _FILE.size
    while offset < len(data):
        frame = _frame_at(data, offset)
        if frame is None or frame[0] != first + len(records):
            _check_torn(path, data, offset, first + len(records))
            break
        sequence, _, payload = frame
        records.append(Record(sequence, offset, payload))
        offset += _FRAME.size + len(payload)
    return Scan(first, records, offset, len(data))


def _frame_at(data: bytes, offset: int) -> tuple[int, int, bytes] | None:
    """Sequence, durable and payload of the frame at `offset`; None if there is no whole one."""
    if offset + _FRAME.size > len(data):
        return None
    marker, length, sequence, durable, crc, header_crc = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if marker != _MARKER or zlib.crc32(data[offset : start - 4]) != header_crc or start + length > len(data):
        return None
    payload = data[start : start + length]
    return (sequence, durable, payload) if zlib.crc32(payload) == crc else None


def _check_torn(path: Path, data: bytes, offset: int, sequence: int) -> None:
    """Raise `CorruptFile` if a frame behind `offset` says that record `sequence` was durable already."""
    at = data.find(_MARKER, offset + 1)
    while at >= 0:
        frame = _frame_at(data, at)
        if frame is not None and frame[1] >= sequence:
            raise CorruptFile(
                f"{path} is damaged at byte {offset}: record {sequence} cannot be read, and intact ones follow from byte {at}"
            )
        at = data.find(_MARKER, at + 1)


class LogWriter:
    """Appends to one log file. Records of one call are written and, by policy, flushed together."""

    def __init__(self, path: Path, scan: Scan, fsync: FsyncPolicy) -> None:
        """Continue `path` behind what `scan` found; whatever a crash left there is cut off."""
        self.path = path
        self._fsync = fsync
        self._file = os.open(path, os.O_RDWR)
        self._good = scan.end
        self._last = scan.first + len(scan.records) - 1
        os.ftruncate(self._file, scan.end)
        os.fsync(self._file)
        self._durable = self._last
        self._syncing = threading.Lock()
        self._broken: OSError | None = None

    @property
    def last(self) -> int:
        """Sequence number of the last record."""
        return self._last

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._good

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write records, durably if the policy is "always".

        Raises
        ------
        LogWriteFailed : the disk is full or failed. None of the records is in the log, unless the disk would not even take them
            back: then this log refuses everything until it is opened again.
        """
        if self._broken is not None:
            raise LogWriteFailed(f"{self.path} failed earlier ({self._broken}); open the recommender again")
        data = b"".join(self._framed(payloads))
        try:
            self._write(data)
            if self._fsync == "always":
                os.fsync(self._file)
        except OSError as error:
            self._cut_back()
            raise LogWriteFailed(f"cannot write to {self.path}: {error.strerror}; nothing was changed") from error
        self._good += len(data)
        self._last += len(payloads)
        if self._fsync == "always":
            self._durable = self._last

    def sync(self) -> None:
        """Put on disk what was appended; a failure makes the log refuse further records."""
        with self._syncing:
            last = self._last
            if last == self._durable or self._broken is not None:
                return
            try:
                os.fsync(self._file)
            except OSError as error:
                self._broken = error
                raise LogWriteFailed(f"cannot flush {self.path} to disk: {error.strerror}") from error
            self._durable = last

    def close(self) -> None:
        """Flush and close."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def _framed(self, payloads: Sequence[bytes]) -> Iterator[bytes]:
        for sequence, payload in enumerate(payloads, self._last + 1):
            if len(payload) >= _LARGEST:
                raise InvalidInput(
                    f"a record of {len(payload)} bytes is too large for the log: write fewer items at once"
                )
            head = _FRAME.pack(_MARKER, len(payload), sequence, self._durable, zlib.crc32(payload), 0)[:-4]
            yield head
            yield struct.pack("<I", zlib.crc32(head))
            yield payload

    def _write(self, data: bytes) -> None:
        view, at = memoryview(data), self._good
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._file, self._good)
            os.fsync(self._file)
        except OSError as error:
            self._broken = error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
