"""The command line with the tests' encoder in place of a real model: a callable is not stored in a folder."""

from __future__ import annotations

import functools
import sys

from llmrec_fast.cli import main as command
from llmrec_fast.recommender import Recommender
from tests.serving.conftest import encode


def main() -> int:
    Recommender.open = functools.partial(Recommender.open, encoder=encode)  # type: ignore[method-assign]
    return command(sys.argv[1:])
