"""`llmrec-fast build-engine`: a TensorRT engine of a model, for the GPU of this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llmrec_fast.cli.common import add_command, print_json
from llmrec_fast.errors import InvalidInput


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "build-engine",
        _run,
        "Build a model's TensorRT engine and keep it in the cache; takes minutes, and no request does it.",
        ["build-engine minilm", "build-engine ./my-model --precision int8 --texts titles.txt"],
    )
    command.add_argument("model", help="a known name or a model folder")
    command.add_argument("--precision", choices=["float16", "float32", "int8"], default="float16")
    command.add_argument("--texts", type=Path, help="for int8: a file of typical texts, one a line, to measure it with")


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.encoding.cached_engine import build_cached_engine

    texts: list[str] = []
    if options.texts is not None:
        try:
            texts = options.texts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read {options.texts}: {error}") from error
    path = build_cached_engine(options.model, options.precision, texts)
    if options.json:
        print_json({"model": options.model, "precision": options.precision, "engine": str(path)})
    else:
        print(f"the {options.precision} engine of {options.model} is in {path}")
