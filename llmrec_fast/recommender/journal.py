"""The log files beside a saved recommender: replayed when it is opened, appended to while it lives, cut by compaction.

A folder holds what `Recommender.save` wrote and `events-GENERATION.log`. The saved part names the generation that follows it,
and is replaced atomically. Compaction first starts the next generation, then saves the state of that moment, then
deletes the older logs: whatever moment the process dies at, the saved part and the logs from its generation on are the
whole history, and nothing is in both.
"""

from __future__ import annotations

import fcntl
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmrec_fast.errors import CorruptFile, InvalidInput, LLMRecError, LogWriteFailed
from llmrec_fast.recommender.changes import from_bytes
from llmrec_fast.recommender.fitted import Fitted
from llmrec_fast.recommender.live import Events, apply, check
from llmrec_fast.recommender.log import INTERVAL_SECONDS, FsyncPolicy, LogWriter, Record, create_log, scan_log

_REPLAYED_TOGETHER = 4096


@dataclass(frozen=True)
class LogPosition:
    """Where the log begins that follows a saved state: its generation, and the number of its first record."""

    generation: int = 0
    sequence: int = 1


@dataclass(frozen=True)
class RecoveryReport:
    """What opening a folder found.

    Attributes
    ----------
    replayed : number of records in the logs.
    cut_file, cut_at, cut_bytes : the log whose tail a crash had torn, where it was cut, and how much went. None, 0 and 0 if
        nothing was torn. What was cut had never been acknowledged as durable.
    """

    replayed: int
    cut_file: Path | None = None
    cut_at: int = 0
    cut_bytes: int = 0


class Journal:
    """The log of one open recommender. One process at a time may have a folder open."""

    def __init__(self, folder: Path, fsync: FsyncPolicy) -> None:
        """Lock the folder; raises `InvalidInput` if someone has it open."""
        self.folder = folder
        self._fsync = fsync
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise InvalidInput(f"{folder} is open already, here or in another process: close it first") from error
        self._writer: LogWriter | None = None
        self.generation = 0
        self._stop = threading.Event()
        self._syncer: threading.Thread | None = None

    def replay(self, state: Fitted, start: LogPosition) -> tuple[Fitted, RecoveryReport]:
        """The state after all logs; the last one is open for appending then. Raises `CorruptFile`."""
        for number in self._generations():
            if number < start.generation:  # compaction died before it deleted them
                self._path(number).unlink()
        generations = self._generations()
        if start.generation == 0 and not generations:
            create_log(self._path(0), 0, start.sequence)
            generations = [0]
        sequence, count = start.sequence, 0
        for number in range(start.generation, max(generations, default=start.generation) + 1):
            scan = scan_log(self._path(number), number)
            if scan.first != sequence:
                raise CorruptFile(f"{self._path(number)} begins with record {scan.first}; expected {sequence}")
            if scan.end < scan.size and number != generations[-1]:
                raise CorruptFile(f"{self._path(number)} is damaged at byte {scan.end}: a later log follows it")
            state = self._applied(state, scan.records, self._path(number))
            sequence += len(scan.records)
            count += len(scan.records)
        report = RecoveryReport(count)
        path = self._path(generations[-1])
        if scan.end < scan.size:
            report = RecoveryReport(count, path, scan.end, scan.size - scan.end)
            warnings.warn(
                f"the end of {path} was torn by a crash: {report.cut_bytes} bytes from byte {scan.end} on were cut",
                RuntimeWarning,
                stacklevel=4,
            )
        self._writer = LogWriter(path, scan, self._fsync)
        self.generation = generations[-1]
        if self._fsync == "interval":
            self._syncer = threading.Thread(target=self._sync_now_and_then, name="llmrec-fast log", daemon=True)
            self._syncer.start()
        return state, report

    @property
    def size(self) -> int:
        """Bytes of the current log."""
        return self._open.size

    def append(self, records: Sequence[bytes]) -> None:
        """Write changes, as `to_bytes` makes them, durably if the policy says so; raises `LogWriteFailed`."""
        self._open.append(records)

    def next_generation(self) -> LogPosition:
        """Close this log and start the next; returns where it begins. Nothing may be appended meanwhile.

        Raises `LogWriteFailed`, changing nothing, if the folder's path has come to mean another folder: that one's state and
        log are not ours to replace.
        """
        old = self._open
        if not self._still_there():
            raise LogWriteFailed(f"{self.folder} is no longer the folder that was opened: its log goes on where it is")
        try:
            old.sync()
            start = LogPosition(self.generation + 1, old.last + 1)
            path = self._path(start.generation)
            create_log(path, start.generation, start.sequence)
            self._writer = LogWriter(path, scan_log(path, start.generation), self._fsync)
        except OSError as error:
            raise LogWriteFailed(f"cannot start a new log in {self.folder}: {error}") from error
        self.generation = start.generation
        old.close()
        return start

    def forget_before(self, generation: int) -> None:
        """Delete the logs that a saved state has made superfluous."""
        for number in self._generations():
            if number < generation:
                self._path(number).unlink()

    def close(self) -> None:
        """Flush and close the log and let others open the folder."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._syncer is not None:
            self._syncer.join()
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            self._writer = None
            os.close(self._lock)

    def _still_there(self) -> bool:
        try:
            found = os.stat(self.folder / "lock")
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._lock))

    @property
    def _open(self) -> LogWriter:
        if self._writer is None:
            raise InvalidInput(f"{self.folder} has been closed: open it again to write")
        return self._writer

    def _applied(self, state: Fitted, records: Sequence[Record], path: Path) -> Fitted:
        """Replay; neighbouring events go together, since each application copies pages of histories."""
        waiting: list[Events] = []
        for record in records:
            try:
                change = from_bytes(record.payload)
                if not isinstance(change, Events) or len(waiting) == _REPLAYED_TOGETHER:
                    state, waiting = _together(state, waiting), []
                check(state, change)
            except (LLMRecError, ValueError, KeyError) as error:
                raise CorruptFile(f"{path} at byte {record.offset} cannot be replayed: {error}") from error
            if isinstance(change, Events):
                waiting.append(change)
            else:
                state = apply(state, change)
        return _together(state, waiting)

    def _sync_now_and_then(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            writer = self._writer
            if writer is not None:
                try:
                    writer.sync()
                except LogWriteFailed as error:
                    warnings.warn(f"{error}; further events are refused", RuntimeWarning, stacklevel=1)
                    return

    def _generations(self) -> list[int]:
        return generations_in(self.folder)

    def _path(self, generation: int) -> Path:
        return self.folder / f"events-{generation:08d}.log"


def generations_in(folder: Path) -> list[int]:
    """The generations whose logs are in `folder`, rising."""
    return sorted(int(path.stem.removeprefix("events-")) for path in folder.glob("events-" + "[0-9]" * 8 + ".log"))


def _together(state: Fitted, events: Sequence[Events]) -> Fitted:
    if not events:
        return state
    columns = ([value for part in events for value in getattr(part, name)] for name in Events.__annotations__)
    return apply(state, Events(*columns))
