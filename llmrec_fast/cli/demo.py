"""`llmrec-fast demo`: real data, real texts, measured."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llmrec_fast.arrays import as_count
from llmrec_fast.cli.common import add_command, print_json

if TYPE_CHECKING:
    pass


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "demo",
        _run,
        "Recommend MovieLens films from their texts and 100,000 ratings, and measure how good the recommendations are.",
        ["demo", "demo --json"],
    )
    command.add_argument("--users", type=int, default=3, help="for how many users to show recommendations (default: 3)")


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.demo import format_demo, run_demo

    shown = as_count(options.users, "--users", minimum=0)
    result = run_demo(shown_users=shown, progress=not options.json)
    if options.json:
        print_json({"rows": result.offline.rows, "seconds": result.seconds})
    else:
        print(format_demo(result))
