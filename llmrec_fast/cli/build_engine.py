"""`llmrec-fast build-engine`: a TensorRT engine of a model, for the GPU of this machine."""

from __future__ import annotations

import argparse
from typing import Any

from llmrec_fast.cli.common import add_command, print_json


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "build-engine",
        _run,
        "Build a model's TensorRT engine and keep it in the cache; takes minutes, and no request does it.",
        ["build-engine minilm", "build-engine ./my-model --precision int8"],
    )
    command.add_argument("model", help="a known name or a model folder")
    command.add_argument("--precision", choices=["float16", "float32", "int8"], default="float16")


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.encoding.cached_engine import build_cached_engine

    path = build_cached_engine(options.model, options.precision)
    if options.json:
        print_json({"model": options.model, "precision": options.precision, "engine": str(path)})
    else:
        print(f"the {options.precision} engine of {options.model} is in {path}")
