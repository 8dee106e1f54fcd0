"""`main`: one command, its errors and its exit status. Each command has a file of its own beside this one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llmrec_fast import __version__
from llmrec_fast.cli import build_engine, demo, encode, evaluate, info, recommend, serve, tune
from llmrec_fast.errors import LLMRecError

_DESCRIPTION = "Exact, fast recommendations from language-model embeddings."
_COMMANDS = (demo, encode, build_engine, recommend, evaluate, tune, serve, info)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except LLMRecError as error:
        print(f"llmrec-fast {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("llmrec-fast", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"llmrec-fast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser
