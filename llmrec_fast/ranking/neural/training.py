"""Train a neural scorer with torch, on the CPU, repeatably."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Int64Array
from llmrec_fast.ranking.neural.network import Network, Standardisation
from llmrec_fast.ranking.neural.settings import NeuralSettings
from llmrec_fast.ranking.torch_training import import_torch, progress_bar, seeded

_NDCG_AT, _RECALL_AT = 10, 20
# ranks beyond which the lambda objective no longer tells rows apart
_TRUNCATION = 30


def train(
    rows: Float32Array,
    grades: Float32Array,
    sizes: Int64Array,
    settings: NeuralSettings,
    threads: int | None,
    show_progress: bool | None,
) -> Network:
    """The mean of `settings.members` networks; arguments as `NeuralRanker.fit` takes them, checked."""
    torch = import_torch("a neural reranker")
    before = Standardisation.fit(rows)
    groups = _Groups(before(rows), grades, sizes)
    teaching = groups.teaching
    order = np.random.default_rng(settings.seed).permutation(teaching)
    # with several members everything teaches most of them; with a single one the held-out part teaches none
    parts = settings.members if settings.members > 1 else round(1 / settings.validation)
    members = []
    for member in range(settings.members):
        held = order[member::parts] if len(order) >= parts > 1 else order[:0]
        what = f"neural reranker {member + 1} of {settings.members}"
        with seeded(torch, settings.seed * settings.members + member, threads):
            training = _Training(torch, groups, np.setdiff1d(teaching, held), held, settings, member)
            members.append(training.run(what, show_progress))
    return Network.joined(before, members)


class _Groups:
    """Rows in groups, padded to one length when a batch is made."""

    def __init__(self, rows: Float32Array, grades: Float32Array, sizes: Int64Array) -> None:
        self.rows, self.grades, self.sizes = rows, grades, sizes
        self._starts = np.concatenate(([0], np.cumsum(sizes)))[:-1]
        relevant = np.bincount(np.repeat(np.arange(len(sizes)), sizes), grades > 0, minlength=len(sizes))
        # without a relevant row, or with nothing else, there is no order to learn
        self.teaching: Int64Array = np.flatnonzero((relevant > 0) & (relevant < sizes))
        if not len(self.teaching):
            self.teaching = np.flatnonzero(relevant > 0)

    def padded(self, chosen: Int64Array) -> tuple[Float32Array, Float32Array, BoolArray]:
        """Rows (g, m, f), grades (g, m) and which of both are there (g, m)."""
        places = np.arange(self.sizes[chosen].max())
        there: BoolArray = places < self.sizes[chosen][:, None]
        at = np.where(there, self._starts[chosen][:, None] + places, 0)
        return self.rows[at], np.where(there, self.grades[at], 0), there


class _Training:
    """One network, its optimiser and its part of the groups."""

    def __init__(
        self, torch: Any, groups: _Groups, taught: Int64Array, held: Int64Array, settings: NeuralSettings, member: int
    ) -> None:
        self._torch, self._groups, self._settings = torch, groups, settings
        self._taught, self._held = taught, held
        self._hidden = torch.nn.Linear(groups.rows.shape[1], settings.hidden)
        self._output = torch.nn.Linear(settings.hidden, 1)
        self._layers = torch.nn.ModuleList([self._hidden, self._output])
        self._optimizer = torch.optim.AdamW(
            self._layers.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._random = np.random.default_rng([settings.seed, member])

    def run(self, what: str, show_progress: bool | None) -> tuple[Float32Array, ...]:
        """Train; the parameters (hidden, bias, output, offset) of the epoch that ordered the held-out groups best."""
        best, best_epoch, parameters = -1.0, 0, self._parameters()
        bar = progress_bar(range(1, self._settings.epochs + 1), what, show_progress)
        for epoch in bar:
            self._epoch()
            quality = self._quality() if len(self._held) else float(epoch)  # nothing held out: the last epoch is taken
            if quality > best:
                best, best_epoch, parameters = quality, epoch, self._parameters()
            elif epoch - best_epoch >= self._settings.patience:
                break
            bar.set_postfix(quality=f"{quality:.4f}", best=f"{best:.4f}")
        bar.close()
        return parameters

    def _epoch(self) -> None:
        order = self._random.permutation(self._taught)
        for start in range(0, len(order), self._settings.batch):
            self._optimizer.zero_grad()
            self._loss(order[start : start + self._settings.batch]).backward()
            self._optimizer.step()

    def _scores(self, rows: Float32Array, *, training: bool) -> Any:
        functional = self._torch.nn.functional
        active = functional.relu(self._hidden(self._torch.from_numpy(rows)))
        return self._output(functional.dropout(active, self._settings.dropout, training))[..., 0]

    def _loss(self, chosen: Int64Array) -> Any:
        torch = self._torch
        rows, grades, there = self._groups.padded(chosen)
        scores = self._scores(rows, training=True).masked_fill(~torch.from_numpy(there), -1e9)
        if self._settings.objective == "softmax":
            wanted = torch.from_numpy(grades / grades.sum(axis=1, keepdims=True))
            return -(torch.log_softmax(scores, dim=1) * wanted).sum() / len(chosen)
        return _lambda_loss(torch, scores, grades, there)

    def _quality(self) -> float:
        """Mean of NDCG@10 and Recall@20 over the held-out groups, whose rows are all there is to find."""
        rows, grades, there = self._groups.padded(self._held)
        with self._torch.no_grad():
            scores = self._scores(rows, training=False).numpy()
        order = np.argsort(np.where(there, -scores, np.inf), axis=1, kind="stable")
        found = np.take_along_axis(grades > 0, order, axis=1)
        relevant = (grades > 0).sum(axis=1)
        cut = min(_NDCG_AT, found.shape[1])
        gains = 1 / np.log2(np.arange(cut) + 2)
        ndcg = found[:, :cut] @ gains / np.cumsum(gains)[np.minimum(relevant, cut) - 1]
        return float((ndcg + found[:, :_RECALL_AT].sum(axis=1) / relevant).mean() / 2)

    def _parameters(self) -> tuple[Float32Array, ...]:
        layers = (self._hidden.weight, self._hidden.bias, self._output.weight, self._output.bias)
        return tuple(values.detach().numpy().copy() for values in layers)


def _lambda_loss(torch: Any, scores: Any, grades: Float32Array, there: BoolArray) -> Any:
    """Logistic loss of pairs times the change of NDCG@30 that swapping them makes, mean over groups."""
    ranks = np.argsort(np.argsort(-scores.detach().numpy(), axis=1, kind="stable"), axis=1)
    discounts = np.where(ranks < _TRUNCATION, 1 / np.log2(ranks + 2), 0)
    top = -np.sort(-grades, axis=1)[:, :_TRUNCATION]
    ideal = (top / np.log2(np.arange(top.shape[1]) + 2)).sum(axis=1)
    group, better = np.nonzero(grades > 0)
    lead = grades[group, better][:, None] - grades[group]
    swaps = np.abs(discounts[group, better][:, None] - discounts[group]) / ideal[group, None]
    weights = np.where((lead > 0) & there[group], lead * swaps, 0).astype(np.float32)
    margins = scores[torch.from_numpy(group), torch.from_numpy(better)][:, None] - scores[torch.from_numpy(group)]
    return (torch.nn.functional.softplus(-margins) * torch.from_numpy(weights)).sum() / len(grades)
