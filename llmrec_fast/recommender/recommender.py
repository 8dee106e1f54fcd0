"""`Recommender`: the one place that joins encoding, features, retrieval and ranking. The learning itself is in `fitting.py`."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from llmrec_fast.arrays import ArrayLike, as_count, as_matrix
from llmrec_fast.encoding import Encoder, EncoderLike, TextEncoder, as_text_encoder
from llmrec_fast.encoding.pooling import pooling_from_name
from llmrec_fast.errors import CorruptFile, InvalidInput, LLMRecError, NotFitted
from llmrec_fast.features import HistoryWeighting, Interactions, Items, read_interactions, read_items
from llmrec_fast.folders import MANIFEST
from llmrec_fast.ids import plain_id
from llmrec_fast.ranking.adapter import AdapterSettings
from llmrec_fast.recommender import storage
from llmrec_fast.recommender.answers import Answers, Snapshot
from llmrec_fast.recommender.collaborating import Model, check_model
from llmrec_fast.recommender.events import strength_of, time_of
from llmrec_fast.recommender.fitted import FitReport, Fitted
from llmrec_fast.recommender.fitting import ADAPTER, ADAPTER_HISTORIES, TEXT, Settings, fit
from llmrec_fast.recommender.journal import Journal, RecoveryReport
from llmrec_fast.recommender.live import Events, ItemsRemoved, ItemsWritten
from llmrec_fast.recommender.log import FsyncPolicy, check_policy
from llmrec_fast.recommender.reranking import Kind, RerankerSettings
from llmrec_fast.recommender.writing import Writing

COMPACT_BYTES = 64 << 20


class Recommender(Answers):
    """Recommendations from item texts (or ready vectors) and what people did, with scores that explain themselves.

    The score of an item for a user is `sum over features f of weight_f * cos_f(user, item) + weight * popularity(item)`, where
    a user is the weighted sum of the items of the history. Features are "text" (centred language-model vectors),
    "collaborative" (EASE's eigenvectors) and any others given as arrays.

    Parameters
    ----------
    encoder : a known model (`"minilm"`), a model folder, an object with `encode(texts)`, any callable from a list of texts to a
        matrix, or None for no text feature. Loaded when the first text is encoded.
    weights : feature -> weight, with "popularity" for the prior. None: chosen on a validation part of the interactions.
    decay : items after which a history item counts 1/e; None weighs old and new alike; "auto" is chosen with the weights.
    liked_from : for ratings: from which value on an item was liked. Without it values weigh interactions as they are.
    others : how much an interaction below `liked_from` counts, 0 to 1.
    collaborative : the model that learns the collaborative vectors: "ease", "item-knn" (as vectors, of its leading singular
        directions), "svd", "als" and "bpr" (`pip install 'llmrec-fast[als]'`) or "nmf" (scikit-learn).
    rank, regularization : of the collaborative vectors. A rank of 256 suits EASE, of 16 to 64 the factorisations; None leaves
        the vectors out. Regularization is in the model's own units, see `features.fit_ease` and the others (item-kNN: the
        shrinkage); None: its default there.
    pooling : how `encoder`, if it is a known name or a folder, makes one vector of a text's tokens, see `Encoder`; None: as the
        model says. It is saved, and kept by `load`.
    threads : bound on the number of threads.
    adapter : True or settings for the feature "adapter": towers that take the other vectors given, text first of all, to where
        behaviour agrees with them (`ranking.adapter`; training needs torch, `pip install 'llmrec-fast[train]'`, answers and
        saved recommenders do not). New items get their adapted vectors from their texts at once.
    reranker : "trees", "neural" or settings for a stage that reorders the retrieved candidates by a scorer of pair features,
        trained on the last part of each user's interactions: gradient-boosted trees (True means them too; they need LightGBM,
        `pip install 'llmrec-fast[trees]'`) or a network (training needs torch, answers and saved recommenders do not).

    Attributes
    ----------
    report_ : what `fit` did: rows dropped and why, weights, seconds by stage.
    recovery_ : what `open` found in the log.

    Examples
    --------
    >>> import numpy as np
    >>> from llmrec_fast import Recommender
    >>> items = {"id": ["a", "b", "c"], "text": ["red wine", "white wine", "motor oil"]}
    >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> recommender = Recommender(encoder=None).fit(items, vectors={"text": vectors})
    >>> recommender.similar_items(["a"], k=1).items.tolist()
    [['b']]
    """

    def __init__(
        self,
        encoder: EncoderLike | None = "minilm",
        *,
        weights: Mapping[str, float] | None = None,
        decay: float | Literal["auto"] | None = "auto",
        liked_from: float | None = None,
        others: float = 0.25,
        rank: int | None = 256,
        regularization: float | None = None,
        threads: int | None = None,
        adapter: bool | AdapterSettings = False,
        reranker: bool | Kind | RerankerSettings = False,
        collaborative: Model = "ease",
        pooling: str | None = None,
    ) -> None:
        if isinstance(decay, str) and decay != "auto":
            raise InvalidInput(f"decay must be a positive number of items, None or 'auto'; got {decay!r}")
        if decay != "auto":
            HistoryWeighting(decay)
        shape = AdapterSettings() if adapter is True else adapter or None
        stage = RerankerSettings.of(reranker)
        check_model(collaborative, regularization)
        if pooling is not None:
            pooling_from_name(pooling)
            if not isinstance(encoder, str | Path):
                raise InvalidInput("pooling goes with a known model or a folder; an object or callable pools by itself")
        self._settings = Settings(
            weights, decay, liked_from, others, rank, regularization, threads, shape, stage, collaborative, pooling
        )
        self._encoder_like = encoder
        self._encoder: TextEncoder | None = None
        self._state: Fitted | None = None
        self._writing = Writing(self._fitted, self._publish)
        self._compacting = threading.Lock()
        self._compact_at = COMPACT_BYTES
        self.recovery_: RecoveryReport | None = None
        self.report_: FitReport | None = None

    # -- learning -------------------------------------------------------------------------------------------------------

    def fit(
        self,
        items: Any,
        interactions: Any = None,
        *,
        vectors: Mapping[str, ArrayLike] | None = None,
        show_progress: bool | None = None,
    ) -> Recommender:
        """Learn from a catalogue and interactions; returns self. A failed fit leaves what was fitted before.

        Parameters
        ----------
        items : `Items` from `features.read_items`, or what that reads: a DataFrame, a mapping of columns, a file's path.
        interactions : `Interactions` from `features.read_interactions`, or what that reads, or None. Items that are not in the
            catalogue are dropped and reported when a source is read, and refused in ready `Interactions`.
        vectors : ready features, name -> (items, d) in the order of the catalogue. "text" replaces encoding.
        show_progress : whether the training of an adapter or a neural reranker shows bars on standard error; None: on a
            terminal.

        Raises
        ------
        InvalidInput : an empty catalogue, vectors with NaN or of another length, weights for features that do not exist.
        """
        catalogue = items if isinstance(items, Items) else read_items(items)
        if interactions is not None and not isinstance(interactions, Interactions):
            interactions = read_interactions(interactions, known_items=catalogue.ids)
        encoder = self._text_encoder if self._encoder_like is not None else None
        fitted, report = fit(self._settings, catalogue, interactions, vectors or {}, encoder, show_progress)
        with self._writing.lock:
            if self._writing.journal is not None:
                raise InvalidInput(
                    "this recommender is open on a folder: fit another, save it to a new folder and open that"
                )
            self._state, self.report_ = fitted, report
        return self

    # -- living ---------------------------------------------------------------------------------------------------------

    def record(
        self, user: Hashable, item: Hashable, value: float | None = None, timestamp: int | datetime | None = None
    ) -> None:
        """Someone did something: from now on it counts in answers for this user, who may be new.

        An event weighs what it would have in `fit` (with `liked_from` a value below it counts `others`; otherwise the value
        itself, 1 without one), takes its place in the history by time, and ages with what follows. An item that is in the
        history already counts once, at its latest time. Items are not moved: popularity and collaborative vectors are
        learned by `fit`.

        Parameters
        ----------
        user, item : ids; the item must be known.
        value : as in the interactions that were fitted.
        timestamp : in their unit; datetimes in microseconds since 1970. None: the time of the user's latest event, behind it.

        Raises
        ------
        UnknownId, InvalidInput : an item that is not known, a value that `fit` would refuse; nothing was recorded.
        """
        self.record_many([user], [item], [value], [timestamp])

    def record_many(
        self,
        users: Sequence[Hashable],
        items: Sequence[Hashable],
        values: Sequence[float | None] | ArrayLike | None = None,
        timestamps: Sequence[int | datetime | None] | ArrayLike | None = None,
    ) -> None:
        """Several events in order, as by `record`: all of them or, if one is refused, none."""
        count = len(items)
        if isinstance(users, str) or isinstance(items, str):
            raise InvalidInput("users and items must be sequences of ids, not one string")
        if len(users) != count:
            raise InvalidInput(f"users and items must be of one length; got {len(users)} and {count}")
        strengths = [strength_of(self._settings, value) for value in _column(values, count, "values")]
        times = [time_of(timestamp) for timestamp in _column(timestamps, count, "timestamps")]
        self._writing.commit(
            Events([plain_id(user) for user in users], [plain_id(item) for item in items], strengths, times)
        )

    def upsert_items(self, items: Any, *, vectors: Mapping[str, ArrayLike] | None = None) -> None:
        """Add items, or describe known ones anew, by their text (or vectors); they can be recommended so at once.

        A known item keeps its place in histories, its popularity, its collaborative vector and every feature that is not given;
        its title is replaced. A new item has nothing but the features given. An item that was removed and comes back is new.

        Parameters
        ----------
        items : as in `fit`.
        vectors : name -> (n, d) in the order of `items`, moved as those of `fit` were. "text" replaces encoding.

        Raises
        ------
        InvalidInput : vectors of an unknown feature or another shape; nothing was changed.
        """
        self._writing.commit(self._described(items, vectors))

    def add_items(self, items: Any, *, vectors: Mapping[str, ArrayLike] | None = None) -> None:
        """`upsert_items` of new items only: raises `InvalidInput`, and adds nothing, if an id is known already."""
        self._writing.commit(self._described(items, vectors), new=True)

    def remove_items(self, ids: Sequence[Hashable]) -> None:
        """Take items out of the catalogue: out of answers, and out of the histories that describe users.

        Raises `UnknownId` (nothing was removed) if one is not known, `InvalidInput` if none would be left.
        """
        self._writing.commit(ItemsRemoved([plain_id(identifier) for identifier in ids]))

    def snapshot(self) -> Snapshot:
        """The recommender as it is now, for reading: what is written later does not show in it. Costs nothing."""
        return Snapshot(self._fitted(), self._text_encoder)

    # -- storage --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything but the encoder to the folder `path`, atomically, checksummed. Ids must be str, int or UUID.

        The name or folder of an encoder and its pooling are kept; an object or callable must be given to `load` again.
        """
        storage.save(Path(path), self._fitted(), self._settings, self._encoder_name)

    @classmethod
    def load(cls, path: str | Path, *, encoder: EncoderLike | None = None, threads: int | None = None) -> Recommender:
        """Read what `save` wrote. Raises `CorruptFile`, naming the file, if it is damaged.

        encoder : instead of the one that was saved; a name or folder pools as was saved, an object as it does.
        """
        state, settings, name, _ = storage.load(Path(path), threads)
        return cls._made(state, settings, name, encoder)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        fsync: FsyncPolicy = "always",
        encoder: EncoderLike | None = None,
        threads: int | None = None,
        create_from: Recommender | None = None,
        compact_bytes: int = COMPACT_BYTES,
    ) -> Recommender:
        """Open a saved recommender to live in its folder: every change goes to a log there before readers see it.

        After a crash `open` replays the log; `recovery_` says what it found. A tail that the crash tore is cut, with a
        `RuntimeWarning`; only changes that had not been acknowledged as durable can be in it. Close it with `close` or `with`.

        Parameters
        ----------
        folder : what `save` wrote. One process at a time may have it open; others can `load` its last compacted state.
        fsync : "always": a change is on disk when the call returns (threads that write at once share one flush). "interval":
            flushed every 0.1 s, which a power cut may lose; "never": when the system likes. A killed process alone loses
            nothing under any of them.
        encoder, threads : as in `load`.
        create_from : a fitted recommender to save to `folder` if that does not exist yet.
        compact_bytes : size of the log from which on it is compacted in the background: the folder is saved anew,
            atomically, and the log starts empty. Readers and writers go on meanwhile.

        Raises
        ------
        CorruptFile : damage that no crash leaves, with file and byte offset. InvalidInput : the folder is open already.
        """
        path, policy = Path(folder), check_policy(fsync)
        if create_from is not None and not path.exists():
            create_from.save(path)
        if not (path / MANIFEST).exists():
            raise CorruptFile(f"{path} holds no saved recommender: save one there first, or pass create_from=")
        journal = Journal(path, policy)
        try:
            state, settings, name, follows = storage.load(path, threads)
            recommender = cls._made(state, settings, name, encoder)
            recommender._state, recommender.recovery_ = journal.replay(state, follows)
        except BaseException:
            journal.close()
            raise
        recommender._compact_at = as_count(compact_bytes, "compact_bytes")
        recommender._writing.journal = journal
        return recommender

    def compact(self) -> None:
        """Save the folder of an open recommender anew and start an empty log. A crash at any moment loses nothing."""
        if self._writing.journal is None:
            raise InvalidInput("this recommender is not open on a folder: see Recommender.open")
        self._compact(-1)

    def close(self) -> None:
        """Flush the log and let go of the folder. Reading goes on working, writing raises."""
        with self._compacting, self._writing.lock:
            if self._writing.journal is not None:
                self._writing.journal.close()

    def __enter__(self) -> Recommender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ---------------------------------------------------------------------------------------------------------

    @classmethod
    def _made(cls, state: Fitted, settings: Settings, name: str | None, encoder: EncoderLike | None) -> Recommender:
        recommender = cls(encoder if encoder is not None else name)
        recommender._settings = settings
        recommender._state = state
        return recommender

    def _publish(self, state: Fitted) -> None:
        self._state = state
        journal = self._writing.journal
        if journal is not None and journal.size > self._compact_at and not self._compacting.locked():
            threading.Thread(target=self._compact_quietly, name="llmrec-fast compaction", daemon=True).start()

    def _compact_quietly(self) -> None:
        """Compaction nobody waits for: what it failed at is said, and the log is still whole."""
        try:
            self._compact(self._compact_at)
        except (OSError, LLMRecError) as error:
            warnings.warn(f"compaction failed, the log goes on: {error}", RuntimeWarning, stacklevel=1)

    def _compact(self, least: int) -> None:
        with self._compacting:
            with self._writing.lock:
                journal = self._writing.journal
                if journal is None or journal.size <= least:
                    return
                follows, state = journal.next_generation(), self._fitted()
            storage.save(journal.folder, state, self._settings, self._encoder_name, follows)
            journal.forget_before(follows.generation)

    @property
    def _encoder_name(self) -> str | None:
        return str(self._encoder_like) if isinstance(self._encoder_like, str | Path) else None

    def _described(self, items: Any, vectors: Mapping[str, ArrayLike] | None) -> ItemsWritten:
        """Items with their features as the space takes them; encodes texts."""
        catalogue = items if isinstance(items, Items) else read_items(items)
        given = {name: as_matrix(values, f"vectors[{name!r}]") for name, values in (vectors or {}).items()}
        centrings = self._fitted().centrings
        if TEXT in centrings and TEXT not in given:
            given[TEXT] = as_matrix(self._text_encoder().encode(catalogue.texts), "the vectors of the texts")
        for name, values in given.items():
            if name not in centrings:
                raise InvalidInput(
                    f"there is no feature {name!r} to describe items by; features: {', '.join(centrings)}"
                )
            if len(values) != len(catalogue):
                raise InvalidInput(f"vectors[{name!r}] has {len(values)} rows; expected {len(catalogue)}, one an item")
        features = {name: centrings[name].apply(values) for name, values in given.items()}
        adapter = self._fitted().adapter
        if adapter is not None and any(name in features for name in adapter.widths):
            inputs = self._fitted().described(catalogue.ids, adapter.widths) | features
            features[ADAPTER], features[ADAPTER_HISTORIES] = adapter.adapt(inputs, len(catalogue))
        return ItemsWritten(list(catalogue.ids), list(catalogue.titles), features)

    def _fitted(self) -> Fitted:
        if self._state is None:
            raise NotFitted("this recommender is not fitted yet: call fit(items, interactions) first")
        return self._state

    def _text_encoder(self) -> TextEncoder:
        if self._encoder_like is None:
            raise InvalidInput("this recommender has no encoder: pass one to Recommender(...) or Recommender.load(...)")
        if self._encoder is None:
            like = self._encoder_like
            if isinstance(like, str | Path):
                self._encoder = Encoder(like, pooling=self._settings.pooling, threads=self._settings.threads)
            else:
                self._encoder = as_text_encoder(like)
        return self._encoder


def _column(values: Any, count: int, name: str) -> list[Any]:
    """A column of events as a list; None for one without values."""
    column = [None] * count if values is None else list(values)
    if len(column) != count:
        raise InvalidInput(f"{name} must have {count} values, one an event; got {len(column)}")
    return column
