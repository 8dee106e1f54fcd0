"""`Qrels` and `Run`: scores by query and document, with ranx's ways in and out. Nothing here measures anything."""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from llmrec_fast.compat.ranx.judged import Scores
from llmrec_fast.errors import CorruptFile, InvalidInput, MissingDependency

_KINDS = {"json": "json", "trec": "trec", "txt": "trec", "gz": "gz", "parq": "parquet", "parquet": "parquet"}


class ScoreTable:
    """What `Qrels` and `Run` share: a dict of dicts whose queries come by id and whose documents come by falling score.

    Documents with equal scores keep the order in which they were given; ranx's order of those is left open by its sort.
    """

    _trec_fields: ClassVar[int]

    def __init__(self, scores: Scores | None, name: str | None) -> None:
        self.name = name
        self._scores: dict[str, dict[str, Any]] = {}
        self._ordered = True
        for query, documents in (scores or {}).items():
            self._put(query, documents.items())

    def keys(self) -> Any:
        """Query ids."""
        return self.ordered().keys()

    def get_query_ids(self) -> list[str]:
        """Query ids, in order."""
        return list(self.ordered())

    def get_doc_ids_and_scores(self) -> list[dict[str, Any]]:
        """Each query's scores by document, in the order of `get_query_ids`."""
        return [dict(documents) for documents in self.ordered().values()]

    def add_score(self, q_id: str, doc_id: str, score: float) -> None:
        """Set the score of one document."""
        self._put(q_id, [*self._scores.get(q_id, {}).items(), (doc_id, score)])

    def add(self, q_id: str, doc_ids: Sequence[str], scores: Sequence[float]) -> None:
        """Set a query's documents and their scores."""
        if len(doc_ids) != len(scores):
            raise InvalidInput(f"query {q_id!r} has {len(doc_ids)} documents and {len(scores)} scores")
        self._put(q_id, zip(doc_ids, scores, strict=True))

    def add_multi(
        self, q_ids: Sequence[str], doc_ids: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]
    ) -> None:
        """`add` for several queries."""
        if not len(q_ids) == len(doc_ids) == len(scores):
            raise InvalidInput(f"got {len(q_ids)} queries, {len(doc_ids)} lists of documents, {len(scores)} of scores")
        for query, documents, values in zip(q_ids, doc_ids, scores, strict=True):
            self.add(query, documents, values)

    def ordered(self) -> dict[str, dict[str, Any]]:
        """The scores, ordered; not a copy."""
        if not self._ordered:
            self._scores = {
                query: dict(sorted(documents.items(), key=lambda item: -item[1]))
                for query, documents in sorted(self._scores.items())
            }
            self._ordered = True
        return self._scores

    @property
    def sorted(self) -> bool:
        """Whether queries come by id and documents by falling score already; whatever needs that order makes it."""
        return self._ordered

    def sort(self) -> None:
        """Put queries and documents in order now."""
        self.ordered()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """A copy as plain dicts."""
        return {query: dict(documents) for query, documents in self.ordered().items()}

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with the columns q_id, doc_id and score."""
        rows = [(query, doc, score) for query, docs in self.ordered().items() for doc, score in docs.items()]
        return _pandas().DataFrame(rows, columns=["q_id", "doc_id", "score"])

    def save(self, path: str | Path, kind: str | None = None) -> None:
        """Write a JSON, TREC or Parquet file; `kind` ("json", "trec", "parquet") defaults to what the suffix says."""
        kind = _file_kind(path, kind)
        if kind == "json":
            Path(path).write_text(json.dumps(self.to_dict(), indent=2), encoding="utf-8")
        elif kind == "trec":
            Path(path).write_text("\n".join(self._trec_lines()), encoding="utf-8")
        elif kind == "parquet":
            self.to_dataframe().to_parquet(path, index=False)
        else:
            raise InvalidInput("kind must be 'json', 'trec' or 'parquet' for writing; got 'gz'")

    @classmethod
    def from_dict(cls, d: Scores, name: str | None = None) -> Self:
        """From {query: {document: score}}."""
        return cls(d, name)

    @classmethod
    def from_df(
        cls,
        df: Any,
        q_id_col: str = "q_id",
        doc_id_col: str = "doc_id",
        score_col: str = "score",
        name: str | None = None,
    ) -> Self:
        """From the columns of a pandas DataFrame; of a pair that occurs twice the last row counts."""
        table: dict[str, dict[str, Any]] = defaultdict(dict)
        columns = (df[column].tolist() for column in (q_id_col, doc_id_col, score_col))
        for query, document, score in zip(*columns, strict=True):
            table[query][document] = score
        return cls(table, name)

    @classmethod
    def from_parquet(
        cls, path: str | Path, q_id_col: str = "q_id", doc_id_col: str = "doc_id", score_col: str = "score",
        pd_kwargs: Mapping[str, Any] | None = None, name: str | None = None,
    ) -> Self:  # fmt: skip
        """From a Parquet file that pandas reads with the keywords `pd_kwargs`."""
        return cls.from_df(_pandas().read_parquet(path, **(pd_kwargs or {})), q_id_col, doc_id_col, score_col, name)

    @classmethod
    def from_file(cls, path: str | Path, kind: str | None = None, name: str | None = None) -> Self:
        """From a JSON or TREC file, the latter gzipped or not; `kind` ("json", "trec", "gz") defaults to the suffix.

        Raises
        ------
        CorruptFile : a file that is not JSON, or a line with another number of fields; the message names it.
        """
        kind = _file_kind(path, kind)
        if kind == "parquet":
            return cls.from_parquet(path, name=name)
        if kind == "json":
            try:
                return cls(json.loads(Path(path).read_bytes()), name)
            except json.JSONDecodeError as error:
                raise CorruptFile(f"{path} is not JSON: {error}") from error
        table: dict[str, dict[str, Any]] = defaultdict(dict)
        with gzip.open(path, "rt", encoding="utf-8") if kind == "gz" else open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                fields = line.split()
                if len(fields) != cls._trec_fields:
                    raise CorruptFile(f"{path}, line {number}: expected {cls._trec_fields} fields, got {len(fields)}")
                table[fields[0]][fields[2]] = cls._trec_score(fields)
                name = name if name is not None or cls._trec_fields < 6 else fields[5]
        return cls(table, name)

    @property
    def size(self) -> int:
        """Number of queries."""
        return len(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __getitem__(self, q_id: str) -> dict[str, Any]:
        return dict(self.ordered()[q_id])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_dict()!r})"

    def _put(self, query: str, pairs: Iterable[tuple[str, Any]]) -> None:
        if not isinstance(query, str):
            raise InvalidInput(f"query ids must be strings; got {query!r}")
        documents: dict[str, Any] = {}
        for document, score in pairs:
            if not isinstance(document, str):
                raise InvalidInput(f"document ids must be strings; query {query!r} has {document!r}")
            documents[document] = self._checked(score, query, document)
        self._scores[query] = documents
        self._ordered = False

    def _checked(self, score: Any, query: str, document: str) -> float:
        raise NotImplementedError

    @staticmethod
    def _trec_score(fields: Sequence[str]) -> float:
        raise NotImplementedError

    def _trec_lines(self) -> list[str]:
        raise NotImplementedError


class Qrels(ScoreTable):
    """Relevance judgments: {query: {document: integer}}, ids being strings."""

    _trec_fields = 4

    def __init__(self, qrels: Scores | None = None, name: str | None = None) -> None:
        super().__init__(qrels, name)

    @property
    def qrels(self) -> dict[str, dict[str, Any]]:
        """The judgments, not a copy; change them through `add` and its like."""
        return self._scores

    def set_relevance_level(self, rel_lvl: int = 1) -> None:
        """Lower every judgment by rel_lvl - 1, so that what was `rel_lvl` becomes 1."""
        self._scores = {q: {d: score - (rel_lvl - 1) for d, score in docs.items()} for q, docs in self._scores.items()}

    def _checked(self, score: Any, query: str, document: str) -> int:
        if isinstance(score, bool) or int(score) != score:
            raise InvalidInput(f"judgments must be integers; query {query!r}, document {document!r} has {score!r}")
        return int(score)

    @staticmethod
    def _trec_score(fields: Sequence[str]) -> int:
        return int(fields[3])

    def _trec_lines(self) -> list[str]:
        return [f"{q} 0 {d} {score}" for q, docs in self.ordered().items() for d, score in docs.items()]


class Run(ScoreTable):
    """Scores that a model gave: {query: {document: number}}, ids being strings.

    Attributes
    ----------
    scores, mean_scores, std_scores : filled by `evaluate`: by metric and query, and by metric.
    metadata : a dict for the caller.
    """

    _trec_fields = 6

    def __init__(self, run: Scores | None = None, name: str | None = None) -> None:
        super().__init__(run, name)
        self.metadata: dict[str, Any] = {}
        self.scores: dict[str, dict[str, float]] = defaultdict(dict)
        self.mean_scores: dict[str, float] = {}
        self.std_scores: dict[str, float] = {}

    @property
    def run(self) -> dict[str, dict[str, Any]]:
        """The scores, not a copy; change them through `add` and its like."""
        return self._scores

    def make_comparable(self, qrels: Qrels) -> Run:
        """Add empty results for queries that only `qrels` has, drop those it lacks; returns this run, changed."""
        self._scores = {query: self._scores.get(query, {}) for query in qrels.keys()}  # noqa: SIM118 - not a dict
        self._ordered = False
        return self

    def _checked(self, score: Any, query: str, document: str) -> float:
        value = float(score)
        if math.isnan(value):  # it has no place in an order
            raise InvalidInput(f"scores must be numbers; query {query!r}, document {document!r} has NaN")
        return value

    @staticmethod
    def _trec_score(fields: Sequence[str]) -> float:
        return float(fields[4])

    def _trec_lines(self) -> list[str]:
        return [
            f"{query} Q0 {document} {rank} {score} {self.name}"
            for query, documents in self.ordered().items()
            for rank, (document, score) in enumerate(documents.items(), 1)
        ]


def _file_kind(path: str | Path, kind: str | None) -> str:
    asked = Path(path).suffix[1:] if kind is None else kind
    if asked not in _KINDS:
        raise InvalidInput(f"kind must be 'json', 'trec', 'gz' or 'parquet'; got {asked!r}")
    return _KINDS[asked]


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingDependency("data frames need pandas: pip install pandas") from error
    return pandas
