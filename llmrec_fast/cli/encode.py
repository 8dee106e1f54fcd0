"""`llmrec-fast encode`: texts to a NumPy file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec_fast.cli.common import add_command, print_json
from llmrec_fast.errors import InvalidInput

if TYPE_CHECKING:
    pass


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "encode",
        _run,
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


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.encoding import Encoder

    if options.output.suffix != ".npy":
        raise InvalidInput(f"--output must end in .npy; got {options.output}")
    texts = _read_texts(options.input, options.text)
    encoder = Encoder(options.model, long_texts=options.long_texts, threads=options.threads)
    vectors = encoder.encode_to(options.output, texts)
    summary = {"texts": len(texts), "dimension": encoder.dimension, "output": str(options.output)}
    if options.json:
        print_json(summary)
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
