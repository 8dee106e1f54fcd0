"""The service as a child process."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Served:
    """`llmrec-fast serve FOLDER` on a free port; a context manager."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        command = [sys.executable, "-m", "llmrec_fast", "serve", str(folder), "--port", "0", *options]
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(command, stderr=stream, stdout=stream)
        mark = "running on http://127.0.0.1:"
        while mark not in (text := self.log.read_text()):
            if self.process.poll() is not None:
                raise RuntimeError(f"the service did not start: {text}")
            time.sleep(0.02)
        self.port = int(text.rpartition(mark)[2].split()[0])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait()
        self.log.unlink(missing_ok=True)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
