"""`llmrec-fast evaluate`: how good recommendations are on one's own data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from llmrec_fast.cli.common import add_command, add_data, add_settings, print_json, read_data, read_settings


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "evaluate",
        _run,
        "Measure recommendations on your own data: each user's first 80% of interactions train, later liked ones test.",
        [
            "evaluate --items films.csv --interactions ratings.csv --liked-from 4 --report films-report",
            "evaluate --items films.csv --interactions ratings.csv --metrics ndcg@10,recall@20,coverage@10 --json",
        ],
    )
    add_data(command, required=True)
    add_settings(command)
    command.add_argument(
        "--report", type=Path, metavar="FOLDER", help="also write a table, JSON and a page with charts"
    )
    command.add_argument("--metrics", help="comma-separated names such as ndcg@10 (default: several)")


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.encoding import Encoder, TextEncoder
    from llmrec_fast.evaluation import write_report
    from llmrec_fast.offline import DEFAULT_METRICS, evaluate_offline, format_rows
    from llmrec_fast.tuning import EncodedOnce, add_tuned, tuned_on

    items, interactions = read_data(options)
    metrics = DEFAULT_METRICS if options.metrics is None else tuple(options.metrics.split(","))
    settings = read_settings(options)
    liked_from = options.liked_from if settings is None else settings.liked_from
    encoder = EncodedOnce(Encoder(options.model, threads=options.threads))
    result = evaluate_offline(items, interactions, encoder, liked_from=liked_from, metrics=metrics)
    if settings is not None:
        if tuned_on(settings, interactions):
            print("warning: these settings were tuned on these interactions: the row is optimistic", file=sys.stderr)
        pooled: TextEncoder = encoder
        if settings.pooling is not None:
            pooled = Encoder(options.model, pooling=settings.pooling, threads=options.threads)
        result = add_tuned(result, settings, items, pooled, metrics)
    if options.report is not None:
        for path in write_report(options.report, result.report(metrics)):
            print(f"written: {path}", file=sys.stderr)
    if options.json:
        print_json({"rows": result.rows, "seconds": result.seconds})
        return
    print(f"{len(result.users)} users, {result.positives:,} liked items to predict, {len(items):,} items ranked\n")
    print(format_rows(result.rows))
    for method, reason in result.left_out.items():
        print(f"{method}: left out; {reason}")
