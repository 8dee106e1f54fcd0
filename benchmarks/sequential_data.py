"""The files of the suite `sequential`: histories with the item that follows each, and the items' texts as vectors."""

from __future__ import annotations

import ast
import csv
import gzip
import html
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from llmrec_fast import Encoder
from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.features import Centring, nearest_items


@dataclass(frozen=True)
class Rows:
    """Histories as CSR, old to new, the item that follows each, and whose they are."""

    indptr: Int64Array
    items: Int64Array
    targets: Int64Array
    users: Int64Array

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Int64Array) -> Rows:
        spans = [self.items[self.indptr[row] : self.indptr[row + 1]] for row in rows.tolist()]
        return _rows(spans, self.targets[rows], self.users[rows])

    def sequences(self) -> tuple[Int64Array, Int64Array]:
        """Every history with its target behind it, as CSR."""
        ends = self.indptr[1:]
        return self.indptr + np.arange(len(self) + 1), np.insert(self.items, ends, self.targets)


@dataclass(frozen=True)
class Catalogue:
    """Centred text vectors (items, d) by name, and what lies near each item."""

    texts: dict[str, Float32Array]
    neighbours: csr_matrix

    @property
    def count(self) -> int:
        return len(next(iter(self.texts.values())))


def read_rows(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    histories = [np.array(ast.literal_eval(row["history_item_id"]), np.int64) for row in rows]
    users = np.unique([row["user_id"] for row in rows], return_inverse=True)[1]
    return _rows(histories, np.array([int(row["item_id"]) for row in rows]), users.astype(np.int64))


def read_catalogue(folder: Path, encoder: Encoder) -> Catalogue:
    path = next(iter(sorted(folder.glob("*.item.json.gz"))))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        table = json.load(file)
    items = [table[str(place)] for place in range(len(table))]
    texts = {
        "title": [item["title"] for item in items],
        "text": [f"{item['title']}. {item['brand']}. {_description(item['description'])}" for item in items],
        "brand": [item["brand"] or "" for item in items],
    }
    vectors = {}
    for name, values in texts.items():
        encoded = encoder.encode([html.unescape(value) for value in values])
        vectors[name] = Centring.fit(encoded).apply(encoded)
    near = nearest_items(np.concatenate([vectors["title"], vectors["text"]], axis=1), 10)
    return Catalogue(vectors, near)


def _rows(histories: list[Int64Array], targets: Int64Array, users: Int64Array) -> Rows:
    indptr = np.concatenate(([0], np.cumsum([len(history) for history in histories])))
    return Rows(indptr, np.concatenate([np.zeros(0, np.int64), *histories]), targets, users)


def _description(cell: str) -> str:
    """Descriptions are lists of paragraphs, written as Python; a few are plain text."""
    try:
        parts = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell
    return " ".join(parts) if isinstance(parts, list) else str(parts)
