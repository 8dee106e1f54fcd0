"""The cheapest way to say no: when a queue is full, a request to it is answered before the HTTP server has parsed it.

At twice the rate that can be served every other request is refused, and what refusing costs is taken from those that are
answered. Parsing, a task and the way through the application come to a third of a small answer; this is a few microseconds.
Only what is beyond doubt is answered here: one whole POST with a plain Content-Length, by someone who may ask. Everything else
takes the usual way, where the guard sees a full queue, or that nobody without the token learns of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmrec_fast.serving.batching import BUSY, Queue
from llmrec_fast.serving.entry import Entry
from llmrec_fast.serving.metrics import Metrics

_METHOD = b"POST "
_VERSION = b" HTTP/1.1\r\n"
# a header that changes where the body ends, or what happens after the answer
_NOT_PLAIN = (b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nconnection:", b"\r\nupgrade:", b"\r\n ", b"\r\n\t")
_LENGTH = b"\r\ncontent-length:"
_BLANK = b"\r\n\r\n"
_BODY = b'{"detail":"%s"}' % BUSY.encode()
_ANSWER = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: %d\r\n\r\n%s"
    % (len(_BODY), _BODY)
)


class Shedding:
    """Answers what full queues cannot take.

    Parameters
    ----------
    queues : path -> the queue that a request to it joins.
    metrics : where refused requests are counted.
    entry : who may ask.
    """

    def __init__(self, queues: Mapping[str, Queue], metrics: Metrics, entry: Entry) -> None:
        self._queues = {path.encode(): (path, queue) for path, queue in queues.items()}
        self._metrics = metrics
        self._entry = entry

    def target(self, data: bytes) -> bytes | None:
        """The path, if `data` is exactly one plain POST to a queue, from its first byte to its last."""
        if not data.startswith(_METHOD):
            return None
        end = data.find(b" ", len(_METHOD))
        path = data[len(_METHOD) : end]
        if path not in self._queues or not data.startswith(_VERSION, end):
            return None
        blank = data.find(_BLANK)
        if blank < 0:
            return None
        head = data[:blank].lower()
        at = head.find(_LENGTH)
        if at < 0 or head.find(_LENGTH, at + 1) >= 0 or any(name in head for name in _NOT_PLAIN):
            return None
        digits = head[at + len(_LENGTH) :].partition(b"\r\n")[0].strip(b" ")
        whole = digits.isdigit() and len(digits) < 8 and blank + 4 + int(digits) == len(data)
        return path if whole else None

    def refusal(self, path: bytes, data: bytes) -> bytes | None:
        """The answer to `data`, whose `target` is `path`, if its queue is full and the sender may ask; counted as given."""
        name, queue = self._queues[path]
        if not queue.full:
            return None
        head = data[: data.find(_BLANK)]
        host, authorization = _header(head, b"\r\nhost:"), _header(head, b"\r\nauthorization:")
        if host is None or authorization is None or self._entry.refusal(name, host, authorization) is not None:
            return None
        queue.shed += 1
        self._metrics.count(name, 429, 0.0)
        return _ANSWER


def _header(head: bytes, name: bytes) -> bytes | None:
    """The value of a header, empty if it is missing; None if it is there twice."""
    lower = head.lower()
    at = lower.find(name)
    if at < 0:
        return b""
    if lower.find(name, at + 1) >= 0:
        return None
    return head[at + len(name) :].partition(b"\r\n")[0].strip(b" \t")
