"""Changes as the bytes of a log record: one JSON document, behind it the float32 vectors of written items."""

from __future__ import annotations

import json
import struct

import numpy as np

from llmrec_fast.ids import tagged_id, untagged_id
from llmrec_fast.recommender.live import Change, Events, ItemsRemoved, ItemsWritten

_LENGTH = struct.Struct("<I")


def to_bytes(change: Change) -> bytes:
    """A change as a record; ids other than str, int and UUID raise `InvalidInput`."""
    vectors = b""
    if isinstance(change, Events):
        document = {
            "events": {
                "users": [tagged_id(user, "user") for user in change.users],
                "items": [tagged_id(item, "item") for item in change.items],
                "strengths": list(change.strengths),
                "timestamps": list(change.timestamps),
            }
        }
    else:
        ids = [tagged_id(identifier, "item") for identifier in change.ids]
        if isinstance(change, ItemsRemoved):
            document = {"removed": {"ids": ids}}
        else:
            shapes = [[name, *values.shape] for name, values in change.features.items()]
            document = {"written": {"ids": ids, "titles": list(change.titles), "features": shapes}}
            vectors = b"".join(np.ascontiguousarray(values, "<f4").tobytes() for values in change.features.values())
    text = json.dumps(document, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text + vectors


def from_bytes(record: bytes) -> Change:
    """The change that `to_bytes` wrote."""
    (length,) = _LENGTH.unpack_from(record)
    start = _LENGTH.size + length
    [(kind, parts)] = json.loads(record[_LENGTH.size : start]).items()
    if kind == "events":
        users, items = ([untagged_id(entry) for entry in parts[name]] for name in ("users", "items"))
        return Events(users, items, parts["strengths"], parts["timestamps"])
    ids = [untagged_id(entry) for entry in parts["ids"]]
    if kind == "removed":
        return ItemsRemoved(ids)
    features = {}
    for name, rows, columns in parts["features"]:
        features[name] = np.frombuffer(record, "<f4", rows * columns, start).reshape(rows, columns)
        start += 4 * rows * columns
    return ItemsWritten(ids, parts["titles"], features)
