"""A two-way table between the caller's ids (strings, integers, UUIDs, any hashable) and positions 0, 1, 2, ...

Everything below the recommender works on positions; this is the one place where ids are looked up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Int64Array
from llmrec_fast.errors import InvalidInput, UnknownId


class IdTable:
    """Distinct ids in order of arrival.

    Integers of any width and their NumPy scalars are the same id; an integer and the string of its digits are not.
    """

    def __init__(self, ids: Iterable[Hashable] = (), *, kind: str = "id") -> None:
        """Take distinct `ids`; `kind` is what messages call them ("user", "item"). A repeated id raises `InvalidInput`."""
        self.kind = kind
        self._ids: list[Hashable] = []
        self._positions: dict[Hashable, int] = {}
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._ids)

    def __contains__(self, identifier: object) -> bool:
        return _plain(identifier) in self._positions

    def __getitem__(self, position: int) -> Hashable:
        return self._ids[position]

    def extend(self, ids: Iterable[Hashable]) -> None:
        """Append `ids`; nothing is appended if one of them is known already or comes twice."""
        fresh: dict[Hashable, int] = {}
        for identifier in ids:
            plain = _plain(identifier)
            if plain is None:
                raise InvalidInput(f"None is not a valid {self.kind} id")
            if plain in self._positions or plain in fresh:
                raise InvalidInput(f"{self.kind} {plain!r} comes twice")
            fresh[plain] = len(self._ids) + len(fresh)
        self._positions.update(fresh)
        self._ids.extend(fresh)

    def position(self, identifier: Hashable) -> int:
        """Position of one id; `UnknownId` if it is not in the table."""
        position = self._positions.get(_plain(identifier))
        if position is None:
            raise UnknownId(f"unknown {self.kind} {identifier!r} (of {len(self)} known){self._hint(identifier)}")
        return position

    def positions(self, ids: Iterable[Hashable]) -> Int64Array:
        """(n,) int64 positions of `ids`; the first one that is not in the table raises `UnknownId`."""
        if isinstance(ids, str | bytes):
            raise InvalidInput(f"expected a sequence of {self.kind} ids, not one string: pass [{ids!r}]")
        return np.array([self.position(identifier) for identifier in ids], np.int64)

    def at(self, positions: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.object_]:
        """The ids at `positions`, as an object array of the same shape; None where a position is negative."""
        found = np.empty(positions.size, object)
        found[:] = [self._ids[position] if position >= 0 else None for position in positions.ravel().tolist()]
        return found.reshape(positions.shape)

    def to_json(self) -> list[list[Any]]:
        """A JSON value from which `from_json` makes an equal table. Ids other than str, int and UUID raise `InvalidInput`."""
        return [_tagged(identifier, self.kind) for identifier in self._ids]

    @classmethod
    def from_json(cls, entries: Sequence[Sequence[Any]], *, kind: str = "id") -> IdTable:
        """The table that `to_json` described."""
        return cls((_untagged(tag, text) for tag, text in entries), kind=kind)

    def _hint(self, identifier: Hashable) -> str:
        """People often mix 7 and "7"; say so when that is it."""
        other: Hashable = str(identifier)
        if isinstance(identifier, str):
            other = int(identifier) if identifier.lstrip("-").isdecimal() else None
        return f"; {other!r} ({type(other).__name__}) is known" if other in self._positions else ""


def json_id(identifier: Hashable) -> str | int:
    """An id as JSON shows it: strings and integers as they are, others by their text."""
    return identifier if isinstance(identifier, str | int) else str(identifier)


def _plain(identifier: Any) -> Any:
    """NumPy scalars as the Python values that they equal; unhashable ids raise `InvalidInput`."""
    plain = identifier.item() if isinstance(identifier, np.generic) else identifier
    try:
        hash(plain)
    except TypeError as error:
        raise InvalidInput(f"an id must be hashable; got {type(plain).__name__}") from error
    return plain


def _tagged(identifier: Hashable, kind: str) -> list[Any]:
    if isinstance(identifier, str):
        return ["s", identifier]
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        return ["i", identifier]
    if isinstance(identifier, UUID):
        return ["u", identifier.hex]
    raise InvalidInput(f"{kind} ids to be saved must be str, int or UUID; got {type(identifier).__name__}")


def _untagged(tag: str, value: Any) -> Hashable:
    return UUID(value) if tag == "u" else {"s": str, "i": int}[tag](value)
