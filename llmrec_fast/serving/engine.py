"""The recommender behind the service: answers batches from one snapshot, writes groups of events with one flush, reloads.

Everything here runs in the lanes' threads and returns JSON as bytes. A request is checked alone before it joins a group, so
that no error reaches its neighbours.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.errors import InvalidInput, UnknownId
from llmrec_fast.ids import json_id
from llmrec_fast.recommender import Recommendations, Recommender, Snapshot
from llmrec_fast.serving import models
from llmrec_fast.serving.batching import Answer, Refused

Opener = Callable[[Path], Recommender]


@dataclass(frozen=True)
class EncodedSearch:
    """A search with the vectors that `recommender`'s encoder made of its texts."""

    request: models.SearchRequest
    vectors: Float32Array
    recommender: Recommender


class Engine:
    """Holds the recommender that answers now.

    Parameters
    ----------
    folder : what `open_folder` opens, now and at each reload.
    open_folder : makes the recommender.
    """

    def __init__(self, folder: Path, open_folder: Opener) -> None:
        self._folder = folder
        self._open = open_folder
        self._writing = threading.Lock()
        self._reloading = threading.Lock()
        self._place, self._identity = _located(folder)
        self.recommender = open_folder(self._place)
        self.writable = True
        self.reload_failure: str | None = None

    def close(self) -> None:
        """Flush the log and let go of the folder."""
        with self._reloading, self._writing:
            self.writable = False
            self.recommender.close()

    def reload(self) -> None:
        """Open the folder anew and answer from it; batches that read the old one finish with it.

        Where the folder's name has come to mean another place (a symbolic link was moved, another folder took the name), that
        one is opened while the old one goes on answering and recording, and takes its place if it opened. The same folder
        can be open once in a process, so the old recommender lets go of it first; if it cannot be opened again, reading goes
        on from memory and writing is refused until a reload succeeds.

        Raises what opening raised; `reload_failure` keeps its kind until a reload succeeds.
        """
        with self._reloading:
            try:
                self._reload()
            except Exception as error:
                self.reload_failure = type(error).__name__
                raise
            self.reload_failure = None

    def _reload(self) -> None:
        place, identity = _located(self._folder)
        old = self.recommender
        if identity == self._identity:
            with self._writing:
                self.writable = False
                old.close()
                self.recommender = self._open(place)
                self.writable = True
            return
        new = self._open(place)
        with self._writing:
            self.recommender, self._place, self._identity = new, place, identity
            self.writable = True
            old.close()

    # -- reading --------------------------------------------------------------------------------------------------------

    def read(self, requests: list[Any]) -> list[Answer]:
        """Recommendations, similar items, searches whose texts are encoded, and explanations."""
        return _grouped(self.recommender, requests)

    # -- writing --------------------------------------------------------------------------------------------------------

    def write(self, requests: list[Any]) -> list[Answer]:
        """Events and items, in the order they came; neighbouring events share one flush."""
        with self._writing:
            if not self.writable:
                return [Refused(503, "the folder cannot be written now")] * len(requests)
            answers: list[Answer] = []
            run: list[models.EventsRequest] = []
            for request in requests:
                if isinstance(request, models.EventsRequest):
                    run.append(request)
                    continue
                answers += self._record(run)
                run = []
                answers.append(_attempt(partial(self._items, request)))
            return answers + self._record(run)

    def _record(self, requests: Sequence[models.EventsRequest]) -> list[Answer]:
        try:
            self._record_all(requests)
        except InvalidInput:
            if len(requests) == 1:
                return [_attempt(partial(self._record_all, requests))]
            # nothing was recorded: each for itself, so that the rest is
            return [answer for request in requests for answer in self._record([request])]
        return [_json({"written": len(request.events)}) for request in requests]

    def _record_all(self, requests: Sequence[models.EventsRequest]) -> bytes:
        events = [event for request in requests for event in request.events]
        if events:
            self.recommender.record_many(
                [event.user for event in events],
                [event.item for event in events],
                [event.value for event in events],
                [event.timestamp for event in events],
            )
        return b""

    def _items(self, request: models.ItemsRequest | models.RemoveRequest) -> bytes:
        if isinstance(request, models.RemoveRequest):
            self.recommender.remove_items(request.items)
            return _json({"written": len(set(request.items))})
        table = {
            "id": [item.id for item in request.items],
            "text": [item.text for item in request.items],
            "title": [item.text if item.title is None else item.title for item in request.items],
        }
        vectors = None
        if request.vectors is not None:
            vectors = {name: _matrix(rows) for name, rows in request.vectors.items()}
        self.recommender.upsert_items(table, vectors=vectors)
        return _json({"written": len(request.items)})


def _located(folder: Path) -> tuple[Path, tuple[int, int]]:
    """Where a folder's name leads now, and what tells that folder from another under the same path."""
    place = folder.resolve(strict=True)
    found = place.stat()
    return place, (found.st_dev, found.st_ino)


def _matrix(rows: list[list[float]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    if len({len(row) for row in rows}) != 1:
        raise InvalidInput("the rows of vectors must be of one length")
    return np.array(rows, np.float32)


# -- what each kind of request checks, and how a group of one kind with equal parameters is answered --------------------


def _check_filters(snapshot: Snapshot, request: models.Filters) -> None:
    if request.k > snapshot.item_count:
        raise Refused(422, f"k is more than the number of items, {snapshot.item_count}")
    _check_items(snapshot, request.exclude)
    _check_items(snapshot, request.allow or ())


def _check_items(snapshot: Snapshot, items: Iterable[Hashable]) -> None:
    for item in items:
        if not snapshot.knows_item(item):
            raise Refused(404, "unknown item")


def _check_users(snapshot: Snapshot, users: Iterable[Hashable]) -> None:
    for user in users:
        if not snapshot.knows_user(user):
            raise Refused(404, "unknown user")


def _check_recommend(snapshot: Snapshot, request: models.RecommendRequest) -> None:
    _check_filters(snapshot, request)
    _check_users(snapshot, request.users or ())
    _check_items(snapshot, request.items or ())


def _check_query(snapshot: Snapshot, request: models.RecommendQuery) -> None:
    _check_users(snapshot, [_from_address(snapshot, request.user)])
    if request.k > snapshot.item_count:
        raise Refused(422, f"k is more than the number of items, {snapshot.item_count}")


def _check_similar(snapshot: Snapshot, request: models.SimilarRequest) -> None:
    _check_filters(snapshot, request)
    _check_items(snapshot, request.items)


def _check_explain(snapshot: Snapshot, request: models.ExplainRequest) -> None:
    _check_users(snapshot, [request.user])
    _check_items(snapshot, [request.item])


def _from_address(snapshot: Snapshot, user: str) -> str | int:
    digits = user.removeprefix("-")
    if not snapshot.knows_user(user) and digits.isascii() and digits.isdecimal() and len(digits) < 20:
        return int(user)
    return user


def _recommend(snapshot: Snapshot, requests: Sequence[models.RecommendRequest]) -> list[bytes]:
    first = requests[0]
    options: dict[str, Any] = {
        "exclude": first.exclude,
        "allow": first.allow,
        "diversity": first.diversity,
        "filter_seen": first.filter_seen,
    }
    if first.items is not None:
        # the history is a parameter of this call, so equal requests share it
        return [_rows(snapshot, snapshot.recommend_for_items(first.items, first.k, **options))] * len(requests)
    asked = [request.users or [] for request in requests]
    return _split(snapshot, snapshot.recommend([user for users in asked for user in users], first.k, **options), asked)


def _recommend_one(snapshot: Snapshot, requests: Sequence[models.RecommendQuery]) -> list[bytes]:
    first = requests[0]
    users = [_from_address(snapshot, request.user) for request in requests]
    found = snapshot.recommend(users, first.k, diversity=first.diversity, filter_seen=first.filter_seen)
    return _split(snapshot, found, [[user] for user in users])


def _similar(snapshot: Snapshot, requests: Sequence[models.SimilarRequest]) -> list[bytes]:
    first = requests[0]
    asked = [request.items for request in requests]
    found = snapshot.similar_items(
        [item for items in asked for item in items], first.k, exclude=first.exclude, allow=first.allow
    )
    return _split(snapshot, found, asked)


def _search(snapshot: Snapshot, requests: Sequence[EncodedSearch]) -> list[bytes]:
    first = requests[0].request
    found = snapshot.recommend_for_text_vectors(
        np.concatenate([search.vectors for search in requests]),
        first.k,
        exclude=first.exclude,
        allow=first.allow,
        diversity=first.diversity,
        popularity=first.popularity,
    )
    return _split(snapshot, found, [search.request.texts for search in requests])


def encoded(vectors: Float32Array) -> bytes:
    """The answer to an `EncodeRequest`; long lists, so not for the event loop."""
    return _json({"vectors": vectors.tolist()})


def _explain(snapshot: Snapshot, requests: Sequence[models.ExplainRequest]) -> list[bytes]:
    explained = snapshot.explain(requests[0].user, requests[0].item)
    value = explained.to_json()
    value["history"] = [
        {**part, "title": snapshot.title(source.item)}
        for part, source in zip(value["history"], explained.history, strict=True)
    ]
    return [_json(value)] * len(requests)


_CHECKS: dict[type, Callable[[Snapshot, Any], None]] = {
    models.RecommendRequest: _check_recommend,
    models.RecommendQuery: _check_query,
    models.SimilarRequest: _check_similar,
    EncodedSearch: lambda snapshot, search: _check_filters(snapshot, search.request),
    models.ExplainRequest: _check_explain,
}
_CALLS: dict[type, Callable[[Snapshot, Any], list[bytes]]] = {
    models.RecommendRequest: _recommend,
    models.RecommendQuery: _recommend_one,
    models.SimilarRequest: _similar,
    EncodedSearch: _search,
    models.ExplainRequest: _explain,
}
# what differs between requests that one call answers
_QUERIES: dict[type, set[str]] = {
    models.RecommendRequest: {"users"},
    models.RecommendQuery: {"user"},
    models.SimilarRequest: {"items"},
    EncodedSearch: {"texts"},
    models.ExplainRequest: set(),
}


def _grouped(recommender: Recommender, requests: Sequence[Any]) -> list[Answer]:
    snapshot = recommender.snapshot()
    answers: list[Answer] = [Refused(500, "internal error")] * len(requests)
    groups: dict[tuple[type, str], list[int]] = {}
    for place, request in enumerate(requests):
        try:
            if isinstance(request, EncodedSearch) and request.recommender is not recommender:
                raise Refused(503, "reloaded meanwhile; try again")
            _CHECKS[type(request)](snapshot, request)
        except Refused as refused:
            answers[place] = refused
            continue
        groups.setdefault((type(request), _parameters(request)), []).append(place)
    for (kind, _), places in groups.items():
        members = [requests[place] for place in places]
        found = _attempt(partial(_CALLS[kind], snapshot, members))
        for row, place in enumerate(places):
            answers[place] = found if isinstance(found, Refused) else found[row]
    return answers


def _parameters(request: Any) -> str:
    fields = request.request if isinstance(request, EncodedSearch) else request
    return repr([(name, value) for name, value in fields if name not in _QUERIES[type(request)]])


def _attempt(call: Callable[[], Any]) -> Any:
    """What `call` gives, or the refusal that its error means. Messages of the package name ids, so they go no further."""
    try:
        return call()
    except UnknownId:
        return Refused(404, "unknown user or item")
    except InvalidInput:
        return Refused(422, "the recommender refuses this: wrong features, values or sizes for what was fitted")


def _split(snapshot: Snapshot, found: Recommendations, asked: Sequence[Sequence[Any]]) -> list[bytes]:
    rows = _items(snapshot, found)
    parts, start = [], 0
    for queries in asked:
        parts.append(_json({"answers": rows[start : start + len(queries)]}))
        start += len(queries)
    return parts


def _rows(snapshot: Snapshot, found: Recommendations) -> bytes:
    return _json({"answers": _items(snapshot, found)})


def _items(snapshot: Snapshot, found: Recommendations) -> list[list[dict[str, Any]]]:
    rows = []
    for row, positions in zip(found, found.positions, strict=True):
        titles = snapshot.titles(positions[: len(row)])
        rows.append(
            [
                {"item": json_id(item), "title": title, "score": score}
                for (item, score), title in zip(row, titles, strict=True)
            ]
        )
    return rows


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
