"""Every limit of the service in one place, checked once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmrec_fast.arrays import as_count
from llmrec_fast.errors import InvalidInput

_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServeSettings:
    """How a service listens and what it lets in.

    Parameters
    ----------
    host, port : where to listen; port 0 takes a free one.
    token : what `Authorization: Bearer` must carry; None lets everyone in and is refused on hosts other than loopback.
    insecure : listen on other hosts without a token all the same.
    fsync : when an event counts as recorded, as in `Recommender.open`.
    queue : requests that may wait for each of reading, text and writing; one more is answered 429, and so is one that would
        have to wait half of `timeout` by what requests have taken lately.
    batch : requests that are answered by one call at most.
    timeout : seconds from a request's body to its answer, else 504.
    body_timeout : seconds for a client to send its headers, and again for its body, else 408 or a closed connection.
    body_limit : bytes of a body, else 413.
    connections : open connections; further ones are answered 503.
    shutdown_timeout : seconds that requests in flight have to end after a signal.
    threads : threads of one search.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    insecure: bool = False
    fsync: Literal["always", "interval", "never"] = "always"
    queue: int = 128
    batch: int = 64
    timeout: float = 2.0
    body_timeout: float = 5.0
    body_limit: int = 1 << 20
    connections: int = 4096
    shutdown_timeout: float = 10.0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("queue", "batch", "body_limit", "connections"):
            as_count(getattr(self, name), name)
        if not 0 <= self.port < 65536:
            raise InvalidInput(f"port must be 0 to 65535; got {self.port}")
        for name in ("timeout", "body_timeout", "shutdown_timeout"):
            if not 0 < getattr(self, name) < 1e6:
                raise InvalidInput(f"{name} must be a positive number of seconds; got {getattr(self, name)}")
        if self.token is not None and (
            len(self.token) < _SHORTEST_TOKEN or not self.token.isascii() or not self.token.isprintable()
        ):
            raise InvalidInput(f"the token must have at least {_SHORTEST_TOKEN} printable ASCII characters")
        if self.token is None and not self.insecure and not is_loopback(self.host):
            raise InvalidInput(
                "without a token the service listens on loopback only: give a token with --token-file or LLMREC_TOKEN, "
                "or say --insecure"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the token from {path}: {error}") from error
