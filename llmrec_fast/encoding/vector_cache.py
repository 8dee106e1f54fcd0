"""`VectorCache`: vectors on disk by text and model, so that no text is encoded twice, not even by another process.

An SQLite database in write-ahead mode: several processes may share one folder, and a crash leaves whole vectors only. Keys are
128-bit BLAKE2b digests of the text and of everything that makes its vector what it is, so the cache holds no text.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from llmrec_fast.arrays import Float32Array, as_count
from llmrec_fast.errors import InvalidInput

_FILE = "vectors.sqlite"
# below the number of variables that any SQLite allows in a statement
_KEYS_AT_A_TIME = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS vectors_by_use ON vectors (used);
CREATE TABLE IF NOT EXISTS clock (time INTEGER NOT NULL);
INSERT INTO clock SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM clock);
"""


class VectorCache:
    """Vectors by text and model in one folder, the longest unused leaving first. May be shared by threads and processes.

    What goes wrong while encoding (a full disk, a damaged database) costs the cache, never the caller: one `RuntimeWarning`
    says so, and texts are encoded as if there were no cache.

    Parameters
    ----------
    folder : made if absent.
    max_vectors : how many vectors it may hold; a 384-column vector takes some 1.6 kB.

    Raises
    ------
    InvalidInput : the folder cannot be made or written to, or holds another kind of file by the cache's name.
    """

    def __init__(self, folder: str | Path, *, max_vectors: int = 1_000_000) -> None:
        self._path = Path(folder) / _FILE
        self._max_vectors = as_count(max_vectors, "max_vectors")
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._process = 0
        self._broken = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._transaction() as database:
                database.execute("UPDATE clock SET time = time")  # fails now where nothing can be written
        except (OSError, sqlite3.Error) as error:
            raise InvalidInput(
                f"the vector cache {self._path} cannot be used ({error}); give a folder that can be written to, or "
                "delete the file if it is damaged"
            ) from error

    def __len__(self) -> int:
        """How many vectors it holds now."""
        with self._transaction() as database:
            return int(database.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])

    def through(self, texts: Sequence[str], model: bytes, compute: Callable[[list[str]], Float32Array]) -> Float32Array:
        """The vectors of distinct `texts`: those that are here, and `compute` of the others, which are kept.

        Parameters
        ----------
        texts : distinct texts.
        model : a digest of everything else that the vectors depend on.
        compute : texts to (n, d) float32.
        """
        keys = [hashlib.blake2b(text.encode(), digest_size=16, key=model[:64]).digest() for text in texts]
        known = self._attempt(lambda: self._read(keys)) or {}
        missing = [position for position, key in enumerate(keys) if key not in known]
        if not known:
            vectors = compute(list(texts))
        else:
            computed = compute([texts[position] for position in missing])
            vectors = np.empty((len(texts), computed.shape[1]), np.float32)
            vectors[missing] = computed
            for position, key in enumerate(keys):
                if key in known:
                    vectors[position] = known[key]
        if missing:
            self._attempt(lambda: self._write([keys[position] for position in missing], vectors[missing]))
        return vectors

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Float32Array]:
        found: dict[bytes, Float32Array] = {}
        with self._transaction() as database:
            database.execute("UPDATE clock SET time = time + 1")
            for start in range(0, len(keys), _KEYS_AT_A_TIME):
                piece = keys[start : start + _KEYS_AT_A_TIME]
                marks = ",".join("?" * len(piece))
                rows = database.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", piece).fetchall()
                found.update((key, np.frombuffer(vector, np.float32)) for key, vector in rows)
                database.execute(f"UPDATE vectors SET used = (SELECT time FROM clock) WHERE key IN ({marks})", piece)
        return found

    def _write(self, keys: Sequence[bytes], vectors: Float32Array) -> None:
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, (SELECT time FROM clock))",
                zip(keys, (row.tobytes() for row in vectors), strict=True),
            )
            count = int(database.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])
            if count > self._max_vectors:
                database.execute(
                    "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors ORDER BY used LIMIT ?)",
                    (count - self._max_vectors,),
                )

    def _attempt(self, action: Callable[[], dict[bytes, Float32Array] | None]) -> dict[bytes, Float32Array] | None:
        if self._broken:
            return None
        try:
            return action()
        except (OSError, sqlite3.Error) as error:
            self._broken = True
            warnings.warn(
                f"the vector cache {self._path} failed ({error}); texts are encoded without it from now on",
                RuntimeWarning,
                stacklevel=4,
            )
            return None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, in a transaction that is undone where an exception leaves it."""
        with self._lock:
            if self._database is None or self._process != os.getpid():  # SQLite's connections do not survive a fork
                self._database, self._process = self._connect(), os.getpid()
            database = self._database
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.rollback()
                raise
            database.commit()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, database.close)
        database.execute("PRAGMA journal_mode = WAL")
        # a crash may lose the newest vectors, never the database
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        return database
