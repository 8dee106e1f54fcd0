"""`llmrec-fast serve`: a saved recommender as an HTTP service."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from llmrec_fast.cli.common import add_command

TOKEN_VARIABLE = "LLMREC_TOKEN"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "serve",
        _run,
        "Serve a saved recommender over HTTP, on this machine only unless told otherwise.",
        ["serve films.recommender", "serve films.recommender --host 0.0.0.0 --token-file token.txt"],
    )
    command.add_argument("folder", type=Path, help="what Recommender.save wrote")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    command.add_argument("--token-file", type=Path, help=f"a file with the bearer token (or ${TOKEN_VARIABLE})")
    command.add_argument("--insecure", action="store_true", help="listen on other hosts without a token")
    command.add_argument("--fsync", choices=["always", "interval", "never"], default="always")
    command.add_argument("--queue", type=int, default=128, help="requests that may wait (default: 128)")
    command.add_argument("--batch", type=int, default=64, help="requests answered by one call (default: 64)")
    command.add_argument("--timeout", type=float, default=2.0, help="seconds to an answer (default: 2)")
    command.add_argument("--body-timeout", type=float, default=5.0, help="seconds for headers, and for a body")
    command.add_argument("--body-limit", type=int, default=1 << 20, help="bytes of a body (default: 1 MiB)")
    command.add_argument("--connections", type=int, default=4096, help="open connections (default: 4096)")
    command.add_argument("--shutdown-timeout", type=float, default=10.0, help="seconds for what is under way at a stop")
    command.add_argument("--threads", type=int)


def _run(options: argparse.Namespace) -> None:
    from llmrec_fast.serving.server import serve
    from llmrec_fast.serving.settings import ServeSettings, read_token

    token = os.environ.get(TOKEN_VARIABLE) or None
    if options.token_file is not None:
        token = read_token(options.token_file)
    given = vars(options)
    names = [field.name for field in fields(ServeSettings) if field.name in given]
    settings = ServeSettings(token=token, **{name: given[name] for name in names})
    serve(options.folder, settings)
