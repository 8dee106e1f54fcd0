"""What several commands share: their parser, the options that name data, and JSON output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec_fast.errors import InvalidInput

if TYPE_CHECKING:
    from llmrec_fast.features import Interactions, Items
    from llmrec_fast.tuned import TunedSettings


def add_command(commands: Any, name: str, run: Any, summary: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A subcommand with its summary, its examples and `--json`, which calls `run` with the parsed options."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="examples:\n" + "\n".join(f"  llmrec-fast {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return command


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, ensure_ascii=False))


def add_data(command: argparse.ArgumentParser, *, required: bool) -> None:
    """The options that name a catalogue and its interactions; `read_data` reads what they name."""
    command.add_argument("--items", type=Path, required=required, help="the catalogue: a .csv or .parquet file")
    command.add_argument("--interactions", type=Path, required=required, help="who did what: a .csv or .parquet file")
    command.add_argument("--text", help="what describes an item: a column, or a template such as '{title} ({year})'")
    command.add_argument("--liked-from", type=float, help="for ratings: from which value on an item was liked")
    command.add_argument("--model", default="minilm", help="a known name or a model folder (default: minilm)")
    command.add_argument("--threads", type=int)


def read_data(options: argparse.Namespace) -> tuple[Items, Interactions]:
    """The two tables; what cleaning dropped is told on standard error."""
    from llmrec_fast.features import read_interactions, read_items

    if options.interactions is None:
        raise InvalidInput("--items goes with --interactions")
    items = read_items(options.items, text=options.text)
    interactions = read_interactions(options.interactions, known_items=items.ids)
    for report in (items.report, interactions.report):
        print(report, file=sys.stderr)
    return items, interactions


def add_settings(command: argparse.ArgumentParser) -> None:
    """The option that names tuned settings; `read_settings` reads them."""
    command.add_argument("--settings", type=Path, metavar="FILE", help="settings that `llmrec-fast tune` wrote")


def read_settings(options: argparse.Namespace) -> TunedSettings | None:
    """The tuned settings, if any; `--liked-from` must not say otherwise."""
    if options.settings is None:
        return None
    from llmrec_fast.tuned import TunedSettings

    settings = TunedSettings.read(options.settings)
    if options.liked_from is not None and options.liked_from != settings.liked_from:
        raise InvalidInput(f"{options.settings} was tuned with --liked-from {settings.liked_from}; say that or nothing")
    return settings
