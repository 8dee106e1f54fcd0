"""`llmrec-fast tune`: the settings of a recommender that are best on a validation part of one's own data."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmrec_fast.cli.common import add_command, add_data, print_json, read_data


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "tune",
        _run,
        "Search the settings of a recommender, scored on the last fifth of each user's interactions in this file.",
        [
            "tune --items films.csv --interactions train.csv --liked-from 4 --minutes 5 --output settings.json",
            "evaluate --items films.csv --interactions other.csv --liked-from 4 --settings settings.json",
        ],
    )
    add_data(command, required=True)
    command.add_argument("--output", type=Path, metavar="FILE", help="write the settings there, for --settings")
    command.add_argument(
        "--collaborative",
        action="append",
        metavar="MODEL",
        help="a model of behaviour to choose among: ease, item-knn, svd, als, bpr or nmf; may be repeated (default: all that "
        "are installed)",
    )
    command.add_argument(
        "--pooling",
        action="append",
        metavar="NAME",
        help="a pooling of a text's tokens to try beside the model's own, each one pass over the texts: mean, max, first, "
        "last, weighted_mean or mean_sqrt_len; may be repeated (default: mean, max and first; 'own' for no other)",
    )
    command.add_argument(
        "--adapter",
        action="store_true",
        help="also try adapter towers over the texts, a minute or more for each that is trained (needs torch)",
    )
    command.add_argument(
        "--reranker",
        action="append",
        default=[],
        choices=["trees", "neural"],
        help="also try to rerank what the settings found retrieve; may be repeated",
    )
    command.add_argument("--minutes", type=float, default=10.0, help="how long to search (default: 10)")
    command.add_argument("--trials", type=int, help="at most so many settings")
    command.add_argument("--storage", type=Path, metavar="FILE", help="keep the search in this SQLite file, and go on")
    command.add_argument("--seed", type=int, default=0)


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.tuning import tune_recommender
    from llmrec_fast.tuning_space import OWN_POOLING

    items, interactions = read_data(options)
    poolings = options.pooling
    if poolings is not None:
        poolings = [name for name in poolings if name != OWN_POOLING]
    found = tune_recommender(
        items,
        interactions,
        options.model,
        liked_from=options.liked_from,
        models=options.collaborative,
        poolings=poolings,
        adapter=options.adapter,
        rerankers=options.reranker,
        minutes=options.minutes,
        trials=options.trials,
        storage=options.storage,
        study=options.model,
        seed=options.seed,
        threads=options.threads,
    )
    if options.output is not None:
        found.write(options.output)
        print(f"written: {options.output}", file=sys.stderr)
    if options.json:
        print_json(asdict(found))
        return
    print(f"validation {found.quality:.4f} after {found.trials} trials (first settings: {found.default_quality:.4f})")
    for name, value in found.arguments().items():
        print(f"{name}: {value}")
