"""The command line, `llmrec-fast`: parses arguments, calls the package, prints tables for people or JSON for programs.

Results go to standard output, progress and errors to standard error. Exit status: 0 done, 2 refused (the message says why).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec_fast import __version__
from llmrec_fast.arrays import as_count
from llmrec_fast.errors import InvalidInput, LLMRecError
from llmrec_fast.ids import json_id
from llmrec_fast.tables import format_table

if TYPE_CHECKING:
    from llmrec_fast.features import Interactions, Items
    from llmrec_fast.recommender import Recommender

_DESCRIPTION = "Exact, fast recommendations from language-model embeddings."


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
    for add in (_add_demo, _add_encode, _add_recommend, _add_evaluate, _add_info):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, examples: Sequence[str]) -> argparse.ArgumentParser:
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


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


# -- demo ---------------------------------------------------------------------------------------------------------------


def _add_demo(commands: Any) -> None:
    command = _command(
        commands,
        "demo",
        _run_demo,
        "Recommend MovieLens films from their texts and 100,000 ratings, and measure how good the recommendations are.",
        ["demo", "demo --json"],
    )
    command.add_argument("--users", type=int, default=3, help="for how many users to show recommendations (default: 3)")


def _run_demo(options: argparse.Namespace) -> None:
    from llmrec_fast.demo import format_demo, run_demo

    shown = as_count(options.users, "--users", minimum=0)
    result = run_demo(shown_users=shown, progress=not options.json)
    if options.json:
        _print_json({"rows": result.offline.rows, "seconds": result.seconds})
    else:
        print(format_demo(result))


# -- encode -------------------------------------------------------------------------------------------------------------


def _add_encode(commands: Any) -> None:
    command = _command(
        commands,
        "encode",
        _run_encode,
        "Turn texts into vectors and write them as a NumPy file.",
        [
            "encode titles.txt --output titles.npy",
            "encode items.csv --text '{title}. {description}' --output items.npy --model ./my-model",
        ],
    )
    command.add_argument("input", type=Path, help="a text file with one text a line, or a .csv or .parquet table")
    command.add_argument("--output", type=Path, required=True, help="the .npy file to write (float32, one row a text)")
    command.add_argument("--text", help="for a table: a column, or a template such as '{title} ({year})'")
    command.add_argument("--model", default="minilm", help="a known name or a model folder (default: minilm)")
    command.add_argument("--long-texts", choices=["truncate", "window"], default="truncate")
    command.add_argument("--threads", type=int)


def _run_encode(options: argparse.Namespace) -> None:
    import numpy as np

    from llmrec_fast.encoding import Encoder

    if options.output.suffix != ".npy":
        raise InvalidInput(f"--output must end in .npy; got {options.output}")
    texts = _read_texts(options.input, options.text)
    encoder = Encoder(options.model, long_texts=options.long_texts, threads=options.threads)
    vectors = encoder.encode(texts)
    with options.output.open("wb") as file:
        np.save(file, vectors)
    summary = {"texts": len(texts), "dimension": encoder.dimension, "output": str(options.output)}
    if options.json:
        _print_json(summary)
    else:
        print(f"{len(texts)} texts -> {options.output} ({vectors.shape[0]} x {vectors.shape[1]} float32)")


def _read_texts(path: Path, template: str | None) -> list[str]:
    if path.suffix.lower() in (".csv", ".parquet"):
        from llmrec_fast.features import read_texts

        if template is None:
            raise InvalidInput(
                f"{path} is a table: say which text to encode with --text COLUMN or --text '{{title}} ...'"
            )
        return read_texts(path, template)
    if template is not None:
        raise InvalidInput(f"--text goes with a .csv or .parquet table; got {path}")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error


# -- recommend ------------------------------------------------------------------------------------------------------------


def _add_recommend(commands: Any) -> None:
    command = _command(
        commands,
        "recommend",
        _run_recommend,
        "Recommend items to users, to someone who describes what they want, or beside an item.",
        [
            "recommend --items films.csv --interactions ratings.csv --liked-from 4 --user 42 --save films.recommender",
            "recommend --load films.recommender --user 42 --user 43 -k 5 --explain",
            "recommend --load films.recommender --query 'a heist that goes wrong'",
            "recommend --load films.recommender --like 'Toy Story'",
        ],
    )
    _add_data(command, required=False)
    command.add_argument("--load", type=Path, metavar="FOLDER", help="a saved recommender, instead of --items")
    command.add_argument("--save", type=Path, metavar="FOLDER", help="save what was fitted, for --load")
    command.add_argument("--user", action="append", default=[], help="a user's id; may be repeated")
    command.add_argument("--query", action="append", default=[], help="a text; may be repeated")
    command.add_argument(
        "--like", action="append", default=[], metavar="ITEM", help="an item's id or title; may be repeated"
    )
    command.add_argument("-k", type=int, default=10, help="how many items (default: 10)")
    command.add_argument("--diversity", type=float, default=0.0, help="0 (default) to 1")
    command.add_argument("--include-seen", action="store_true", help="do not leave out what a user knows already")
    command.add_argument("--explain", action="store_true", help="say why each user's first item was chosen")


def _run_recommend(options: argparse.Namespace) -> None:
    from llmrec_fast.recommender import Recommender

    if (options.load is None) == (options.items is None):
        raise InvalidInput("say what to recommend from: --load FOLDER, or --items FILE with --interactions FILE")
    if options.load is not None:
        recommender = Recommender.load(options.load, threads=options.threads)
    else:
        items, interactions = _read_data(options)
        recommender = Recommender(options.model, liked_from=options.liked_from, threads=options.threads)
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
        _print_json({"answers": answers})
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


# -- evaluate -----------------------------------------------------------------------------------------------------------


def _add_evaluate(commands: Any) -> None:
    command = _command(
        commands,
        "evaluate",
        _run_evaluate,
        "Measure recommendations on your own data: each user's first 80% of interactions train, later liked ones test.",
        [
            "evaluate --items films.csv --interactions ratings.csv --liked-from 4 --report films-report",
            "evaluate --items films.csv --interactions ratings.csv --metrics ndcg@10,recall@20,coverage@10 --json",
        ],
    )
    _add_data(command, required=True)
    command.add_argument("--report", type=Path, metavar="FOLDER", help="also write a table, JSON and a page with charts")
    command.add_argument("--metrics", help="comma-separated names such as ndcg@10 (default: several)")


def _run_evaluate(options: argparse.Namespace) -> None:
    from llmrec_fast.encoding import Encoder
    from llmrec_fast.evaluation import write_report
    from llmrec_fast.offline import DEFAULT_METRICS, evaluate_offline, format_rows

    items, interactions = _read_data(options)
    metrics = DEFAULT_METRICS if options.metrics is None else tuple(options.metrics.split(","))
    encoder = Encoder(options.model, threads=options.threads)
    result = evaluate_offline(items, interactions, encoder, liked_from=options.liked_from, metrics=metrics)
    if options.report is not None:
        for path in write_report(options.report, result.report(metrics)):
            print(f"written: {path}", file=sys.stderr)
    if options.json:
        _print_json({"rows": result.rows, "seconds": result.seconds})
        return
    print(f"{len(result.users)} users, {result.positives:,} liked items to predict, {len(items):,} items ranked\n")
    print(format_rows(result.rows))


def _add_data(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument("--items", type=Path, required=required, help="the catalogue: a .csv or .parquet file")
    command.add_argument("--interactions", type=Path, required=required, help="who did what: a .csv or .parquet file")
    command.add_argument("--text", help="what describes an item: a column, or a template such as '{title} ({year})'")
    command.add_argument("--liked-from", type=float, help="for ratings: from which value on an item was liked")
    command.add_argument("--model", default="minilm", help="a known name or a model folder (default: minilm)")
    command.add_argument("--threads", type=int)


def _read_data(options: argparse.Namespace) -> tuple[Items, Interactions]:
    """The two tables; what cleaning dropped is told on standard error."""
    from llmrec_fast.features import read_interactions, read_items

    if options.interactions is None:
        raise InvalidInput("--items goes with --interactions")
    items = read_items(options.items, text=options.text)
    interactions = read_interactions(options.interactions, known_items=items.ids)
    for report in (items.report, interactions.report):
        print(report, file=sys.stderr)
    return items, interactions


# -- info ---------------------------------------------------------------------------------------------------------------


def _add_info(commands: Any) -> None:
    _command(commands, "info", _run_info, "Show versions, devices, threads and the cache.", ["info", "info --json"])


def _run_info(options: argparse.Namespace) -> None:
    from llmrec_fast.system import describe_system

    facts = describe_system()
    if options.json:
        _print_json(facts)
        return
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {key}", "not installed" if part is None else str(part)) for key, part in value.items()]
        else:
            rows.append((name, str(value)))
    print(format_table(["what", "value"], rows))
