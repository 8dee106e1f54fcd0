"""`llmrec-fast demo`: real data, real texts, measured."""

from __future__ import annotations

import argparse
from typing import Any

from llmrec_fast.arrays import as_count
from llmrec_fast.cli.common import add_command, print_json


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
    command.add_argument(
        "--no-adapter", action="store_true", help="leave the adapter out, which takes longest where torch is there"
    )


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.demo import format_demo, run_demo

    shown = as_count(options.users, "--users", minimum=0)
    result = run_demo(shown_users=shown, progress=not options.json, adapt=not options.no_adapter)
    if options.json:
        print_json({"rows": result.offline.rows, "seconds": result.seconds, "row_seconds": result.offline.row_seconds})
    else:
        print(format_demo(result))
