"""Who may ask at all: the bearer token, and the names that a service on loopback answers to.

Whatever answers asks here first, so that nobody else learns how busy the service is or what it holds.
"""

from __future__ import annotations

import hmac

from llmrec_fast.serving.settings import ServeSettings, is_loopback

OPEN = frozenset({"/", "/page.js", "/page.css", "/healthz", "/readyz"})


class Entry:
    """The rules of one service; see `ServeSettings` for the token."""

    def __init__(self, settings: ServeSettings) -> None:
        self._token = None if settings.token is None else settings.token.encode()
        # a page that a browser shows may not reach us through a name that it made point here
        self._only_loopback_names = settings.token is None and is_loopback(settings.host)

    def refusal(self, path: str, host: bytes, authorization: bytes) -> tuple[int, str] | None:
        """Status and reason; None lets a request in. `host` and `authorization` are the headers' values, empty if missing."""
        if self._only_loopback_names and not is_loopback(_name(host)):
            return 421, "this service answers to localhost only"
        if self._token is not None and path not in OPEN:
            scheme, _, given = authorization.partition(b" ")
            if not (hmac.compare_digest(given.strip(), self._token) and scheme.lower() == b"bearer"):
                return 401, "a valid bearer token is needed"
        return None


def _name(host: bytes) -> str:
    """The host without its port."""
    text = host.decode("latin-1")
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].lower()
