"""One writer for many threads: whoever comes while another writes is written by the next, together with all who wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Lock

from llmrec_fast.errors import LLMRecError, LogWriteFailed
from llmrec_fast.recommender.changes import to_bytes
from llmrec_fast.recommender.fitted import Fitted
from llmrec_fast.recommender.journal import Journal
from llmrec_fast.recommender.live import Change, Events, apply, check


class _Write:
    """One thread's change on its way. `turn` is set when it is done, or when its thread is to lead."""

    def __init__(self, change: Change, new: bool, record: bytes) -> None:
        self.change, self.new, self.record = change, new, record
        self.turn = Event()
        self.done = False
        self.error: BaseException | None = None


class Writing:
    """Takes changes from any thread, logs them and then applies them, in one order. One flush serves all who wait for it.

    The first thread that comes leads: it writes for all who wait, wakes them, and hands the lead to the first of those who came
    meanwhile. Nobody whose change is written waits for the next flush, so that each flush finds everyone there again.
    `lock` is held while anything is written.
    """

    def __init__(self, read: Callable[[], Fitted], publish: Callable[[Fitted], None]) -> None:
        self.lock = Lock()
        self.journal: Journal | None = None
        self._read, self._publish = read, publish
        self._waiting: list[_Write] = []
        self._queue = Lock()
        self._leader: _Write | None = None

    def commit(self, change: Change, *, new: bool = False) -> None:
        """Return when `change` is logged, as durably as the journal promises, and readers see it; or raise what hindered it."""
        write = _Write(change, new, b"" if self.journal is None else to_bytes(change))
        with self._queue:
            self._waiting.append(write)
            if self._leader is None:
                self._hand_lead_to(write)
        try:
            write.turn.wait()
            if not write.done:
                with self.lock:
                    with self._queue:
                        writes, self._waiting = self._waiting, []
                    self._lead(writes)
        finally:
            with self._queue:
                if write in self._waiting:  # interrupted before anyone began with it
                    self._waiting.remove(write)
                if self._leader is write:
                    self._hand_lead_to(self._waiting[0] if self._waiting else None)
        if write.error is not None:
            raise write.error

    def _hand_lead_to(self, write: _Write | None) -> None:
        """`_queue` is held."""
        self._leader = write
        if write is not None:
            write.turn.set()

    def _lead(self, writes: Sequence[_Write]) -> None:
        """Write for everyone. Neighbouring events share one flush; what follows a change of items may depend on it."""
        together: list[_Write] = []
        try:
            for write in writes:
                if not isinstance(write.change, Events):
                    self._flush(together)
                    together = []
                try:
                    check(self._read(), write.change, new=write.new)
                except LLMRecError as error:
                    write.error, write.done = error, True
                    continue
                if isinstance(write.change, Events):
                    together.append(write)
                else:
                    self._flush([write])
            self._flush(together)
        finally:
            for write in writes:
                if not write.done:
                    write.error = LogWriteFailed(
                        "the thread that was writing was interrupted: this change is not written"
                    )
                write.done = True
                write.turn.set()

    def _flush(self, writes: Sequence[_Write]) -> None:
        if not writes:
            return
        if self.journal is not None:
            try:
                self.journal.append([write.record for write in writes])
            except LLMRecError as error:
                for write in writes:
                    write.error, write.done = error, True
                return
        state = self._read()
        for write in writes:
            state = apply(state, write.change)
        self._publish(state)
        for write in writes:
            write.done = True
