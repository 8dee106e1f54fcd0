"""`llmrec-fast info`: versions, devices, threads and the cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llmrec_fast.cli.common import add_command, print_json
from llmrec_fast.tables import format_table

if TYPE_CHECKING:
    pass


def add(commands: Any) -> None:
    """Add the command to the parser."""
    add_command(commands, "info", _run, "Show versions, devices, threads and the cache.", ["info", "info --json"])


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.system import describe_system

    facts = describe_system()
    if options.json:
        print_json(facts)
        return
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {key}", "not installed" if part is None else str(part)) for key, part in value.items()]
        else:
            rows.append((name, str(value)))
    print(format_table(["what", "value"], rows))
