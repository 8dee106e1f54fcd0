"""A small recommender in a folder, and a running service over it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from llmrec_fast import Recommender

WORDS = np.random.default_rng(0).standard_normal((256, 16)).astype(np.float32)
TOKEN = "a-token-of-enough-length"


def encode(texts: list[str]) -> np.ndarray:
    return np.array([WORDS[np.frombuffer(text.encode(), np.uint8)].sum(0) + 1e-3 for text in texts])


def fitted() -> Recommender:
    names = [f"item {place}" for place in range(40)]
    items = {"id": [f"i{place}" for place in range(40)], "text": names, "title": [f"<b>{name}</b>" for name in names]}
    users = [user for user in range(10) for _ in range(5)]
    seen = [f"i{(7 * user + place) % 40}" for user in range(10) for place in range(5)]
    interactions = {"user": users, "item": seen, "timestamp": list(range(50))}
    return Recommender(encode, rank=4).fit(items, interactions)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    fitted().save(path)
    return path


class Running:
    """`llmrec-fast serve` in a process of its own (with the tests' encoder)."""

    def __init__(self, folder: Path, log: Path, *options: str, token: str | None = None, fsync: float = 0) -> None:
        self.log = log
        code = "import sys; from tests.serving.child import main; sys.exit(main())"
        environment = {**os.environ, "LLMREC_TOKEN": token or "", "TEST_FSYNC_SECONDS": str(fsync)}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "serve", str(folder), "--port", "0", *options],
                stderr=stream,
                stdout=stream,
                env=environment,
                cwd=Path(__file__).parents[2],
            )
        end = time.monotonic() + 240  # with an empty cache everything is compiled first
        mark = "running on http://127.0.0.1:"
        before = log.read_text().count(mark)
        while log.read_text().count(mark) <= before - (before > 0):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        self.port = int(log.read_text().rpartition(mark)[2].split()[0])
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30)

    def wait_for_log(self, words: str) -> None:
        end = time.monotonic() + 20
        while words not in self.log.read_text():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(30)
        self.client.close()


@pytest.fixture
def serve(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(*options: str, token: str | None = None, fsync: float = 0) -> Running:
        running.append(Running(folder, tmp_path / f"log{len(running)}", *options, token=token, fsync=fsync))
        return running[-1]

    yield start
    for one in running:
        one.stop()
