"""The command line with the tests' encoder in place of a real model: a callable is not stored in a folder.

A text "slow SECONDS ..." takes that long, $TEST_FSYNC_SECONDS makes the disk slow, calls of the encoder print their size and
which of a few agreed words their texts end with, and kernels that are compiled or loaded from the cache print their names.
"""

from __future__ import annotations

import functools
import os
import sys
import time

import numpy as np
from numba.core.dispatcher import Dispatcher

from llmrec_fast.cli import main as command
from llmrec_fast.recommender import Recommender
from tests.serving.conftest import encode

PRINTED = {"begun", "gone", "together"}


def slow_encode(texts: list[str]) -> np.ndarray:
    print("encoding", len(texts), *sorted({text.split()[-1] for text in texts} & PRINTED), flush=True)
    for text in texts:
        if text.startswith("slow "):
            time.sleep(float(text.split()[1]))
    return encode(texts)


def main() -> int:
    compile_kernel = Dispatcher.compile

    def compile_and_tell(self: Dispatcher, signature: object) -> object:
        print("compiling", self.py_func.__name__, flush=True)
        return compile_kernel(self, signature)

    Dispatcher.compile = compile_and_tell
    Recommender.open = functools.partial(Recommender.open, encoder=slow_encode)  # type: ignore[method-assign]
    seconds, fsync = float(os.environ.get("TEST_FSYNC_SECONDS", "0")), os.fsync
    if seconds:

        def slow_fsync(file: int) -> None:
            time.sleep(seconds)
            fsync(file)

        os.fsync = slow_fsync
    return command(sys.argv[1:])
