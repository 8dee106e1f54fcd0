"""Items: ids, the text that describes each, and whatever other columns a catalogue has; read from anywhere and cleaned."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features.columns import id_codes
from llmrec_fast.features.interactions import ITEM_NAMES
from llmrec_fast.features.reading import Column, Source, Table, is_missing, missing, read_table
from llmrec_fast.features.report import CleaningReport, Sieve
from llmrec_fast.features.text import clean_text
from llmrec_fast.ids import IdTable

TEXT_NAMES = ("text", "description", "title", "name")
TITLE_NAMES = ("title", "name", "movie_title")
_EMPTY_BRACKETS = re.compile(r"\s*(?:\(\s*\)|\[\s*\])")


@dataclass(frozen=True)
class Items:
    """A catalogue.

    Attributes
    ----------
    ids : the original ids; everything else stands in their order.
    texts : one text an item; empty where nothing is known.
    titles : how to show an item to people; the id where the source has no titles.
    columns : all columns of the source, (n,) each.
    report : what cleaning found; None where nothing was read.
    """

    ids: IdTable
    texts: tuple[str, ...]
    titles: tuple[str, ...]
    columns: Mapping[str, Column] = field(default_factory=dict)
    report: CleaningReport | None = None

    def __post_init__(self) -> None:
        lengths = {"ids": len(self.ids), "texts": len(self.texts), "titles": len(self.titles)}
        lengths |= {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidInput(f"the columns of items must be of equal length; got {lengths}")

    def __len__(self) -> int:
        return len(self.ids)


def read_items(
    source: Source,
    *,
    item: str | None = None,
    text: str | Sequence[str] | None = None,
    title: str | None = None,
) -> Items:
    """Read and clean a catalogue.

    Dropped and counted: rows without an id; repeated ids (the first row counts). Kept, but counted: items without text,
    which can still be recommended by what people did.

    Parameters
    ----------
    source : DataFrame (pandas, polars), mapping of names to arrays, or path of a CSV or Parquet file; see `read_table`.
    item : column of ids; by default the usual names (`item_id`, `movieId`, ...) or `id` are recognised.
    text : what describes an item: a template such as `"{title} ({year}). Genres: {genres}"`, a column, or columns to be
        joined by ". ". Lists in a cell are joined by ", ". By default the first of `text`, `description`, `title`, `name` that
        there is. Texts go through `clean_text`.
    title : column to show to people, by default `title` or `name`.

    Raises
    ------
    InvalidInput : a column that is not there, or nothing left.
    MissingDependency : a Parquet file without pyarrow.
    """
    table = read_table(source, "items")
    id_name = table.require(item, (*ITEM_NAMES, "id"), "item")
    title_name = table.find(title, TITLE_NAMES, "title")
    template = _template(table, text)
    column = table.columns[id_name]
    sieve = Sieve(table.name, len(table), lambda row: f"{table.where(row)}: item {column[row]!s}")
    sieve.drop(missing(column), "missing id")
    codes, ids = id_codes(table, id_name, sieve.kept, "item", None)
    first = np.full(len(ids), len(codes))
    np.minimum.at(first, codes[sieve.kept], np.flatnonzero(sieve.kept))
    repeated = sieve.kept.copy()
    repeated[first] = False
    sieve.drop(repeated, "repeated id, the first row counts")
    rows = np.flatnonzero(sieve.kept)
    if not len(rows):
        raise InvalidInput(f"no item is left after cleaning. {sieve.report()}")

    columns = {name: values[rows] for name, values in table.columns.items()}
    texts = _texts(template, columns, len(rows))
    empty = np.zeros(len(table), bool)
    empty[rows] = [not text for text in texts]
    sieve.note(empty, "without text")
    titles = columns[title_name] if title_name is not None else columns[id_name]
    shown = tuple(_cell(value) or str(identifier) for value, identifier in zip(titles, ids, strict=True))
    return Items(ids, texts, shown, columns, sieve.report())


def read_texts(source: Source, text: str | Sequence[str] | None = None) -> list[str]:
    """The texts of a table, one a row, with nothing dropped; `source` and `text` are as in `read_items`."""
    table = read_table(source, "texts")
    return list(_texts(_template(table, text), table.columns, len(table)))


def _template(table: Table, text: str | Sequence[str] | None) -> str:
    """`text` in the form of a template whose columns exist."""
    if text is None:
        text = [table.require(None, TEXT_NAMES, "text")]
    elif isinstance(text, str):
        if "{" in text:
            for name in _fields(text):
                table.require(name, (), "text")
            return text
        text = [text]
    for name in text:
        table.require(name, (), "text")
    return ". ".join("{" + name + "}" for name in text)


def _fields(template: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidInput(f"the text template {template!r} is not valid: {error}") from error
    names = [name for _, name, _, _ in parts if name is not None]
    if not all(names) or any(spec or conversion for _, name, spec, conversion in parts if name is not None):
        raise InvalidInput(f"the text template {template!r} may hold column names in braces, and nothing else in them")
    return names


def _texts(template: str, columns: Mapping[str, Column], rows: int) -> tuple[str, ...]:
    parts = list(string.Formatter().parse(template))
    used = [name for _, name, _, _ in parts if name is not None]
    result = []
    for row in range(rows):
        cells = {name: _cell(columns[name][row]) for name in used}
        filled = "".join(literal + (cells[name] if name is not None else "") for literal, name, _, _ in parts)
        # a template without anything filled in says nothing of the item, nor do brackets around nothing
        result.append(clean_text(_EMPTY_BRACKETS.sub("", filled)) if any(cells.values()) else "")
    return tuple(result)


def _cell(value: Any) -> str:
    """A cell as text: "" for a missing value, lists joined by commas, whole floats without a fraction (years from pandas)."""
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_cell(part) for part in value if not is_missing(part))
    if is_missing(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
