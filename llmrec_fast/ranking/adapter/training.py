"""Train adapter towers with torch, on the CPU, repeatably."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.ranking.adapter.adapter import Adapter, join_blocks
from llmrec_fast.ranking.adapter.behaviour import Behaviour, hold_out
from llmrec_fast.ranking.adapter.settings import AdapterSettings
from llmrec_fast.ranking.adapter.towers import LEAK, Attention, Tower, attention_model, tower_model
from llmrec_fast.ranking.torch_training import import_torch, progress_bar, seeded

# from indptr, items and strengths of histories to the vectors (items, d) that are learned from them
LearnVectors: TypeAlias = Callable[[Int64Array, Int64Array, Float32Array], Float32Array]
_SHOWN = 20


def fit_adapter(
    features: Mapping[str, Float32Array],
    indptr: Int64Array,
    items: Int64Array,
    strengths: Float32Array,
    liked: BoolArray,
    settings: AdapterSettings | None = None,
    *,
    learned: Mapping[str, LearnVectors] | None = None,
    threads: int | None = None,
    show_progress: bool | None = False,
) -> Adapter:
    """Train towers that rank what a user liked next above the other items.

    For every liked interaction with something before it, the user is the sum of the history vectors of what came before,
    weighed by strength and age (or by attention), and the loss is the cross-entropy of a softmax over cosines to the
    candidate items divided by the temperature. Items without interactions are no candidates: training must not teach that
    they are wrong.

    Parameters
    ----------
    features : name -> (items, d_f); rows are normalised block by block, a row of zeros says nothing of its item.
    indptr, items : histories as CSR, each from old to new.
    strengths : (positions,) how much each interaction counts in a profile, not negative.
    liked : (positions,) which interactions are targets.
    settings : shape and training.
    learned : further features by name, each learned from the histories that the towers are trained on, so that none knows
        what is held out. New items lack them; `settings.masking` prepares the towers for that.
    threads : of torch while it trains.
    show_progress : whether bars are shown on standard error; None: on a terminal.

    Raises
    ------
    MissingDependency : torch is not installed.
    InvalidInput : no features, features that differ in length, or nothing liked after something else.
    """
    torch = import_torch("an adapter")
    settings = AdapterSettings() if settings is None else settings
    if not features:
        raise InvalidInput("an adapter needs at least one feature to adapt, such as text vectors")
    count = len(next(iter(features.values())))
    everything = Behaviour(indptr, items, strengths, liked, count)
    if not len(everything.targets):
        raise InvalidInput("there is nothing to train an adapter on: no liked interaction comes after another one")
    part, held_out = hold_out(everything, settings.validation)
    with seeded(torch, settings.seed, threads):
        epochs, quality = settings.epochs, None
        if len(part.targets) and len(held_out):
            inputs = _Inputs(features, learned or {}, part)
            epochs, quality = _find_epochs(torch, inputs, part, held_out, settings, show_progress)
        with seeded(torch, settings.seed, threads):
            inputs = _Inputs(features, learned or {}, everything)
            training = _Training(torch, inputs, everything, settings)
            for _ in progress_bar(range(epochs), "adapter", show_progress):
                training.epoch()
    return training.export(inputs.widths, epochs, quality, threads)


class _Inputs:
    """What the towers read of every item: `rows` (items, sum of `widths`), those from column `masked` on being learned."""

    def __init__(
        self, features: Mapping[str, Float32Array], learned: Mapping[str, LearnVectors], data: Behaviour
    ) -> None:
        blocks = dict(features)
        for name, learn in learned.items():
            if name in features:
                raise InvalidInput(f"the feature {name!r} is both given and learned")
            blocks[name] = learn(data.indptr, data.items, data.strengths)
        self.widths = {name: block.shape[1] for name, block in blocks.items()}
        self.rows = join_blocks(blocks, self.widths, data.n_items)
        self.masked = sum(self.widths[name] for name in features)


def _find_epochs(
    torch: Any,
    inputs: _Inputs,
    part: Behaviour,
    held_out: list[tuple[int, Int64Array]],
    settings: AdapterSettings,
    show_progress: bool | None,
) -> tuple[int, float]:
    """After how many epochs the held-out part is ranked best, and how well: early stopping."""
    training = _Training(torch, inputs, part, settings)
    best, best_epochs = -1.0, 1
    bar = progress_bar(range(1, settings.epochs + 1), "adapter, validation", show_progress)
    for epoch in bar:
        training.epoch()
        quality = training.quality(held_out)
        if quality > best:
            best, best_epochs = quality, epoch
        elif epoch - best_epochs >= settings.patience:
            break
        bar.set_postfix(quality=f"{quality:.4f}", best=f"{best:.4f}")
    bar.close()
    return best_epochs, best


class _Training:
    """The towers, their optimiser and the data of one training."""

    def __init__(self, torch: Any, inputs: _Inputs, data: Behaviour, settings: AdapterSettings) -> None:
        self._torch, self._data, self._settings = torch, data, settings
        self._rows, self._masked = torch.from_numpy(inputs.rows), inputs.masked
        self._item_tower, self._history_tower = (_layers(torch, self._rows.shape[1], settings) for _ in range(2))
        self._attention = _attention(torch, settings) if settings.sequential else None
        modules = [self._item_tower, self._history_tower, *([] if self._attention is None else [self._attention])]
        parameters = [parameter for module in modules for parameter in module.parameters()]
        self._optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self._graph = _graph(torch, data) if settings.smoothing else None
        self._random = np.random.default_rng(settings.seed)
        self._chosen = np.unique(data.items)

    def epoch(self) -> None:
        """One pass over all targets, in random order."""
        targets = self._random.permutation(self._data.targets)
        for start in range(0, len(targets), self._settings.batch):
            self._optimizer.zero_grad()
            self._loss(targets[start : start + self._settings.batch]).backward()
            self._optimizer.step()

    def quality(self, held_out: list[tuple[int, Int64Array]]) -> float:
        """Mean of NDCG@10 and Recall@20 over the held-out users, what they had before left out."""
        torch, data = self._torch, self._data
        users = np.array([user for user, _ in held_out])
        with torch.no_grad():
            item_vectors, history_vectors = self._vectors(training=False)
            offsets, positions = data.latest(users, self._settings.recent)
            scores = (self._profiles(history_vectors, offsets, positions) @ item_vectors.T).numpy()
        hits, sizes = np.zeros(scores.shape, bool), np.array([len(wanted) for _, wanted in held_out])
        for row, (user, wanted) in enumerate(held_out):
            hits[row, wanted] = True
            scores[row, data.items[data.indptr[user] : data.indptr[user + 1]]] = -np.inf
        shown = min(_SHOWN, scores.shape[1])
        top = np.argsort(-scores, axis=1, kind="stable")[:, :shown]
        found = np.take_along_axis(hits & np.isfinite(scores), top, axis=1)
        gains = 1 / np.log2(np.arange(min(10, shown)) + 2)
        ideal = np.cumsum(gains)[np.minimum(sizes, len(gains)) - 1]
        ndcg = (found[:, : len(gains)] @ gains) / ideal
        return float((ndcg.mean() + (found.sum(axis=1) / sizes).mean()) / 2)

    def export(self, widths: Mapping[str, int], epochs: int, quality: float | None, threads: int | None) -> Adapter:
        """The trained towers, as ONNX."""
        with self._torch.no_grad():
            item_vectors, history_vectors = (vectors.numpy() for vectors in self._vectors(training=False))
        known = self._rows.numpy().any(axis=1)[:, None]
        smoothed = known if self._graph is None else True
        item_tower, history_tower = (
            Tower(tower_model(_exported(tower)), threads) for tower in (self._item_tower, self._history_tower)
        )
        attention = None
        if self._attention is not None:
            parameters = [self._attention.get_parameter(name).detach().numpy() for name in ("query", "key", "age")]
            attention = Attention(attention_model(*parameters), threads)
        return Adapter(
            dict(widths),
            item_tower,
            history_tower,
            attention,
            np.where(smoothed, item_vectors, 0).astype(np.float32),
            np.where(smoothed, history_vectors, 0).astype(np.float32),
            epochs,
            quality,
        )

    def _loss(self, targets: Int64Array) -> Any:
        torch, data, settings = self._torch, self._data, self._settings
        item_vectors, history_vectors = self._vectors(training=True)
        offsets, positions = data.before(targets, settings.recent)
        profiles = self._profiles(history_vectors, offsets, positions)
        wanted = data.items[targets]
        candidates = self._chosen
        if len(candidates) > settings.candidates:
            drawn = self._random.choice(candidates, settings.candidates, replace=False)
            candidates = np.union1d(drawn, wanted)
        logits = profiles @ item_vectors[torch.from_numpy(candidates)].T / settings.temperature
        places = np.full(data.n_items, -1)
        places[candidates] = np.arange(len(candidates))
        # what the profile was made of is neither right nor wrong
        columns = places[data.items[positions]]
        own = np.repeat(np.arange(len(targets)), np.diff(offsets))
        known = columns >= 0
        labels = places[wanted]
        seen = torch.zeros(logits.shape, dtype=torch.bool)
        seen[own[known], columns[known]] = True
        seen[np.arange(len(targets)), labels] = False
        return torch.nn.functional.cross_entropy(logits.masked_fill(seen, -torch.inf), torch.from_numpy(labels))

    def _vectors(self, *, training: bool) -> tuple[Any, Any]:
        """Unit item and history vectors of the whole catalogue."""
        torch, settings = self._torch, self._settings
        normalize = torch.nn.functional.normalize
        rows = self._rows
        if training and self._masked < rows.shape[1]:
            # some items look new in every step: what is learned of them is not there, as it will not be for new ones
            kept = (torch.rand(len(rows), 1) >= settings.masking).float()
            rows = torch.cat([rows[:, : self._masked], kept * rows[:, self._masked :]], dim=1)
        rows = torch.nn.functional.dropout(rows, settings.dropout, training)
        made = []
        for tower in (self._item_tower, self._history_tower):
            layer = total = normalize(tower(rows), dim=1)
            if self._graph is not None:
                forth, back = self._graph
                for _ in range(settings.smoothing):
                    layer = back @ (forth @ layer)
                    total = total + layer
                total = normalize(total, dim=1)
            made.append(total)
        return made[0], made[1]

    def _profiles(self, history_vectors: Any, offsets: Int64Array, positions: Int64Array) -> Any:
        """(rows, dimension) unit sums of the histories at `positions`, as CSR by `offsets`."""
        torch, data, settings = self._torch, self._data, self._settings
        age = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(positions))
        items = torch.from_numpy(data.items[positions])
        plain = (data.strengths[positions] * np.exp(-age / settings.decay)).astype(np.float32)
        weights = torch.from_numpy(plain)
        if self._attention is not None:
            weights = weights * self._attended(self._attention, history_vectors[items], offsets, age)
        row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        if self._attention is None:
            matrix = torch.sparse_coo_tensor(
                torch.from_numpy(np.stack([row, data.items[positions]])),
                weights,
                (len(offsets) - 1, data.n_items),
                check_invariants=False,
            )
            sums = torch.sparse.mm(matrix, history_vectors)
        else:
            sums = torch.zeros(len(offsets) - 1, history_vectors.shape[1])
            sums = sums.index_add(0, torch.from_numpy(row), weights[:, None] * history_vectors[items])
        return torch.nn.functional.normalize(sums, dim=1)

    def _attended(self, attention: Any, vectors: Any, offsets: Int64Array, age: Int64Array) -> Any:
        """Factors of the weights of the positions, as of `Attention`, without the softmax's divisor: profiles are unit."""
        torch = self._torch
        sizes = np.diff(offsets)
        asked = vectors[torch.from_numpy(np.maximum(offsets[1:] - 1, 0))] @ attention.get_parameter("query")
        row = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
        match = (asked[row] * (vectors @ attention.get_parameter("key"))).sum(dim=1)
        sums = match + attention.get_parameter("age")[torch.from_numpy(age)]
        peaks = torch.full((len(sizes),), -torch.inf).scatter_reduce(0, row, sums.detach(), "amax")
        return torch.exp(sums - peaks[row])


def _layers(torch: Any, width: int, settings: AdapterSettings) -> Any:
    if not settings.hidden:
        return torch.nn.Sequential(torch.nn.Linear(width, settings.dimension))
    return torch.nn.Sequential(
        torch.nn.Linear(width, settings.hidden),
        torch.nn.LeakyReLU(LEAK),
        torch.nn.Linear(settings.hidden, settings.dimension),
    )


def _attention(torch: Any, settings: AdapterSettings) -> Any:
    module = torch.nn.Module()
    size = settings.dimension
    module.register_parameter("query", torch.nn.Parameter(torch.randn(size, size) / size**0.5))
    module.register_parameter("key", torch.nn.Parameter(torch.randn(size, size) / size**0.5))
    # the plain weighting by strength and age stands; attention multiplies it
    module.register_parameter("age", torch.nn.Parameter(torch.zeros(settings.recent)))
    return module


def _exported(tower: Any) -> list[tuple[Float32Array, Float32Array]]:
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in tower if hasattr(layer, "weight")]


def _graph(torch: Any, data: Behaviour) -> tuple[Any, Any]:
    """The normalised (users, items) matrix of LightGCN, `D_u^-1/2 R D_i^-1/2`, and its transpose."""
    shape = (len(data.indptr) - 1, data.n_items)
    of_user = np.bincount(data.users, data.strengths, minlength=shape[0])
    of_item = np.bincount(data.items, data.strengths, minlength=shape[1])
    values = data.strengths / np.sqrt(np.maximum(of_user[data.users] * of_item[data.items], np.finfo(np.float32).tiny))
    users, items = torch.from_numpy(data.users), torch.from_numpy(data.items)
    made = torch.from_numpy(values.astype(np.float32))
    forth = torch.sparse_coo_tensor(torch.stack([users, items]), made, shape, check_invariants=False).coalesce()
    back = torch.sparse_coo_tensor(torch.stack([items, users]), made, shape[::-1], check_invariants=False).coalesce()
    return forth, back
