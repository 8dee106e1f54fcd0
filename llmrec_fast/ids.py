"""A two-way table between the caller's ids (strings, integers, UUIDs, any hashable) and positions 0, 1, 2, ...

Everything below the recommender works on positions; this is the one place where ids are looked up.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Int64Array
from llmrec_fast.errors import InvalidInput, UnknownId

_INTEGER = re.compile(r"-?[0-9]{1,20}")


class IdTable:
    """Distinct ids in order of arrival.

    Integers of any width and their NumPy scalars are the same id; an integer and the string of its digits are not.
    """

    def __init__(self, ids: Iterable[Hashable] = (), *, kind: str = "id") -> None:
        """Take distinct `ids`; `kind` is what messages call them ("user", "item"). A repeated id raises `InvalidInput`."""
        self.kind = kind
        self._ids: list[Hashable] = []
        self._positions: dict[Hashable, int] = {}
        self._earlier: dict[int, int] = {}
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._ids)

    def __contains__(self, identifier: object) -> bool:
        return self._find(plain_id(identifier)) is not None

    def __getitem__(self, position: int) -> Hashable:
        return self._ids[position]

    def extend(self, ids: Iterable[Hashable]) -> None:
        """Append `ids`; nothing is appended if one of them is known already or comes twice."""
        fresh: dict[Hashable, int] = {}
        for identifier in ids:
            plain = plain_id(identifier)
            if plain is None:
                raise InvalidInput(f"None is not a valid {self.kind} id")
            if plain in self._positions or plain in fresh:
                raise InvalidInput(f"{self.kind} {plain!r} comes twice")
            fresh[plain] = len(self._ids) + len(fresh)
        self._positions.update(fresh)
        self._ids.extend(fresh)

    def append(self, identifier: Hashable) -> int:
        """Append one id and return its position. A known id moves there; views taken before keep the old position."""
        plain, position = plain_id(identifier), len(self._ids)
        if plain is None:
            raise InvalidInput(f"None is not a valid {self.kind} id")
        # in this order, so that a view read meanwhile finds its own position at every moment
        if plain in self._positions:
            self._earlier[position] = self._positions[plain]
        self._ids.append(plain)
        self._positions[plain] = position
        return position

    def view(self, live: BoolArray | None = None) -> IdView:
        """The table as it is now, whatever is appended later; with `live` (n,) only the positions where it is true count."""
        return IdView(self, live)

    def position(self, identifier: Hashable) -> int:
        """Position of one id; `UnknownId` if it is not in the table."""
        position = self._find(plain_id(identifier))
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
        return [tagged_id(identifier, self.kind) for identifier in self]

    @classmethod
    def from_json(cls, entries: Sequence[Sequence[Any]], *, kind: str = "id") -> IdTable:
        """The table that `to_json` described."""
        return cls((untagged_id(entry) for entry in entries), kind=kind)

    def _hint(self, identifier: Hashable) -> str:
        """People often mix 7 and "7"; say so when that is it."""
        other: Hashable = str(identifier)
        if isinstance(identifier, str):
            other = int(identifier) if _INTEGER.fullmatch(identifier) else None
        return f"; {other!r} ({type(other).__name__}) is known" if self._find(other) is not None else ""

    def _find(self, plain: Hashable) -> int | None:
        return self._positions.get(plain)


class IdView(IdTable):
    """An unchanging view of an `IdTable`: what is appended to the table later does not show in it.

    Positions are the table's, so that with positions taken out `len` is smaller than the largest position.
    """

    def __init__(self, table: IdTable, live: BoolArray | None) -> None:
        self.kind = table.kind
        self._ids, self._positions, self._earlier = table._ids, table._positions, table._earlier
        self._end = len(table._ids) if live is None else len(live)
        self._live = live
        self._count = self._end if live is None else int(np.count_nonzero(live))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Hashable]:
        ids = self._ids[: self._end]
        return iter(ids) if self._live is None else itertools.compress(ids, self._live.tolist())

    def extend(self, ids: Iterable[Hashable]) -> None:
        """A view cannot be extended: raises `InvalidInput`."""
        raise InvalidInput("this is a view of a table of ids; extend the table")

    def append(self, identifier: Hashable) -> int:
        """A view cannot be extended: raises `InvalidInput`."""
        raise InvalidInput("this is a view of a table of ids; extend the table")

    def _find(self, plain: Hashable) -> int | None:
        position = self._positions.get(plain)
        while position is not None and position >= self._end:
            position = self._earlier.get(position)
        return position if position is None or self._live is None or self._live[position] else None


def check_id(identifier: Hashable, kind: str) -> None:
    """Raise `InvalidInput` for what cannot be an id: None, or something unhashable."""
    if plain_id(identifier) is None:
        raise InvalidInput(f"None is not a valid {kind} id")


def json_id(identifier: Hashable) -> str | int:
    """An id as JSON shows it: strings and integers as they are, others by their text."""
    return identifier if isinstance(identifier, str | int) else str(identifier)


def plain_id(identifier: Any) -> Any:
    """NumPy scalars as the Python values that they equal; unhashable ids raise `InvalidInput`."""
    plain = identifier.item() if isinstance(identifier, np.generic) else identifier
    try:
        hash(plain)
    except TypeError as error:
        raise InvalidInput(f"an id must be hashable; got {type(plain).__name__}") from error
    return plain


def tagged_id(identifier: Hashable, kind: str) -> list[Any]:
    """An id as JSON that keeps its type: `["s", "x"]`, `["i", 7]`, `["u", hexadecimal]`. Others raise `InvalidInput`."""
    if isinstance(identifier, str):
        return ["s", identifier]
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        return ["i", identifier]
    if isinstance(identifier, UUID):
        return ["u", identifier.hex]
    raise InvalidInput(f"{kind} ids to be saved must be str, int or UUID; got {type(identifier).__name__}")


def untagged_id(entry: Sequence[Any]) -> Hashable:
    """The id of which `tagged_id` made `entry`."""
    tag, value = entry
    return UUID(value) if tag == "u" else {"s": str, "i": int}[tag](value)
