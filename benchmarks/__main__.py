"""`python -m benchmarks SUITE`: parse the command line, run one suite, write its report.

A suite is a module of this package (named with _ for -) with `add_arguments(parser)` and `run(arguments) -> Report`. Only
the suite that is asked for is imported, so that one suite never needs the peers of another.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.threads import available_cores
from llmrec_fast.errors import InvalidInput

SUITES = {
    "cuda-report": "what the compiler made of the CUDA kernels, and the limits that data sheets set (needs nvcc, no GPU)",
    "dropin": "the modules of llmrec_fast.compat against the libraries they stand in for",
    "encode": "texts per second of the encoder against sentence-transformers",
    "encode-service": "small calls of many asyncio callers, batched together, against the same calls in turn",
    "evaluate": "ranking metrics against ranx, pytrec_eval and RecTools",
    "gpu": "on a GPU: the tests, then retrieval and pooling against cuVS, faiss, torch and CuPy",
    "learn": "what learned recommenders reach on MovieLens over several seeds, and whether that differs from EASE",
    "live": "a recommender in one process beside a writer: latency, tail, and crashes under writes",
    "pool": "token pooling against the NumPy expression and torch",
    "sequential": "next items on the Amazon files of MiniOneRec: text, transitions and trees, tuned on the validation file",
    "cold": "items that nobody has chosen yet: adapter towers against their text alone",
    "retrieval": "exact top-k search against faiss, torch, NumPy, usearch, svs, scikit-learn and hnswlib",
    "serve": "the HTTP service: latency against rate, overload, recovery and crashes",
}
DEFAULT_OUTPUT = Path(__file__).parent / "results"


def main(words: Sequence[str] | None = None) -> int:
    """Run the suite named by the first word; returns the exit status."""
    words = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare llmrec_fast with its peers on this machine.\n\n"
        + "\n".join(f"  {name:<14} {what}" for name, what in SUITES.items())
        + '\n\nPeers are installed by: pip install ".[bench]"',
    )
    parser.add_argument("suite", choices=SUITES)
    if not words or words[0] not in SUITES:
        parser.parse_args(words)  # prints help or says what is wrong, and exits
        parser.error(f"the suite comes first: {', '.join(SUITES)}")
    suite = importlib.import_module(f"benchmarks.{words[0].replace('-', '_')}")
    parser.add_argument("--quick", action="store_true", help="small inputs and few repetitions: minutes become seconds")
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder of the report (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=available_cores(), help="threads of everyone (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=None, help="time for one contender's repetitions in one cell")
    suite.add_arguments(parser)
    arguments = parser.parse_args(words)
    try:
        report = suite.run(arguments)
    except InvalidInput as error:
        parser.error(str(error))
    report.command = shlex.join(["python", "-m", "benchmarks", *words])
    print(report.markdown())
    print("written:", *(str(path) for path in report.write(arguments.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
