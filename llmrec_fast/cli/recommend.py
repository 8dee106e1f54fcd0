"""`llmrec-fast recommend`: for users, texts and items, from data or from a saved recommender."""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec_fast.cli.common import add_command, add_data, add_settings, print_json, read_data, read_settings
from llmrec_fast.errors import InvalidInput
from llmrec_fast.ids import json_id
from llmrec_fast.tables import format_table

if TYPE_CHECKING:
    from llmrec_fast.recommender import Recommender


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "recommend",
        _run,
        "Recommend items to users, to someone who describes what they want, or beside an item.",
        [
            "recommend --items films.csv --interactions ratings.csv --liked-from 4 --user 42 --save films.recommender",
            "recommend --load films.recommender --user 42 --user 43 -k 5 --explain",
            "recommend --load films.recommender --query 'a heist that goes wrong'",
            "recommend --load films.recommender --like 'Toy Story'",
        ],
    )
    add_data(command, required=False)
    command.add_argument("--load", type=Path, metavar="FOLDER", help="a saved recommender, instead of --items")
    command.add_argument("--save", type=Path, metavar="FOLDER", help="save what was fitted, for --load")
    add_settings(command)
    command.add_argument("--user", action="append", default=[], help="a user's id; may be repeated")
    command.add_argument("--query", action="append", default=[], help="a text; may be repeated")
    command.add_argument(
        "--like", action="append", default=[], metavar="ITEM", help="an item's id or title; may be repeated"
    )
    command.add_argument("-k", type=int, default=10, help="how many items (default: 10)")
    command.add_argument("--diversity", type=float, default=0.0, help="0 (default) to 1")
    command.add_argument("--include-seen", action="store_true", help="do not leave out what a user knows already")
    command.add_argument("--explain", action="store_true", help="say why each user's first item was chosen")


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.recommender import Recommender

    if (options.load is None) == (options.items is None):
        raise InvalidInput("say what to recommend from: --load FOLDER, or --items FILE with --interactions FILE")
    if options.load is not None and options.settings is not None:
        raise InvalidInput("--settings say how to fit; a recommender from --load is fitted already")
    if options.load is not None:
        recommender = Recommender.load(options.load, threads=options.threads)
    else:
        items, interactions = read_data(options)
        settings = read_settings(options)
        chosen = {"liked_from": options.liked_from} if settings is None else settings.arguments()
        recommender = Recommender(options.model, **chosen, threads=options.threads)
        recommender.fit(items, interactions)
    if options.save is not None:
        recommender.save(options.save)

    answers: list[dict[str, Any]] = []
    users = [_known(recommender.user_ids, text) for text in options.user]
    if users:
        found = recommender.recommend(
            users, options.k, filter_seen=not options.include_seen, diversity=options.diversity
        )
        for user, row in zip(users, found, strict=True):
            answer = _answer(recommender, {"user": user}, row)
            if options.explain and row:
                answer["explanation"] = recommender.explain(user, row[0][0]).to_json()
            answers.append(answer)
    if options.query:
        found = recommender.recommend_for_text(options.query, options.k, diversity=options.diversity)
        answers += [_answer(recommender, {"query": q}, row) for q, row in zip(options.query, found, strict=True)]
    likes = [_item_named(recommender, text) for text in options.like]
    if likes:
        found = recommender.similar_items(likes, options.k)
        answers += [_answer(recommender, {"like": item}, row) for item, row in zip(likes, found, strict=True)]
    if options.json:
        print_json({"answers": answers})
    else:
        print("\n\n".join(_format_answer(answer) for answer in answers))


def _answer(recommender: Recommender, asked: dict[str, Any], row: list[tuple[Any, float]]) -> dict[str, Any]:
    items = [{"item": json_id(item), "title": recommender.title(item), "score": score} for item, score in row]
    return {**{name: json_id(value) for name, value in asked.items()}, "items": items}


def _format_answer(answer: dict[str, Any]) -> str:
    kind = next(name for name in ("user", "query", "like") if name in answer)
    rows = [[item["score"], str(item["item"]), item["title"]] for item in answer["items"]]
    lines = [f"{kind} {answer[kind]}", format_table(["score", "item", "title"], rows)]
    if "explanation" in answer:
        parts = answer["explanation"]
        lines.append("why the first: " + ", ".join(f"{name} {share:.4f}" for name, share in parts["features"].items()))
        lines += [f"  {part['total']:.4f} from {part['item']}" for part in parts["history"][:3]]
    return "\n".join(lines)


def _known(ids: Sequence[Hashable], text: str) -> Hashable:
    """An id as it was typed: the string itself, or else the integer or UUID that prints like it."""
    return next((identifier for identifier in ids if str(identifier) == text), text)


def _item_named(recommender: Recommender, text: str) -> Hashable:
    """An item by id or else by title; an unknown one is left to the recommender to refuse."""
    identifier = _known(recommender.item_ids, text)
    if identifier != text or text in recommender.item_ids:
        return identifier
    return next((item for item in recommender.item_ids if recommender.title(item) == text), text)
