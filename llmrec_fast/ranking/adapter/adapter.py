"""A trained adapter: towers that take the features of an item to a vector in which behaviour and text agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.ranking.adapter.towers import Attention, Tower


@dataclass(frozen=True)
class Adapter:
    """Two towers over the same features: one for an item that is scored, one for an item of a history.

        score of item j = cosine of (sum over history h of weight_h * history_tower(x_h)) and item_tower(x_j)

    Attributes
    ----------
    widths : feature -> columns; the towers read the features in this order.
    item_tower, history_tower : from (n, sum of widths) to unit rows (n, dimension).
    attention : the weights of a history's items, for a sequential adapter; None: whatever weighs the history.
    item_vectors, history_vectors : (items, dimension) float32 of the items trained on, smoothed over the interaction
        graph where the settings say so.
    epochs : for how many epochs it was trained.
    quality : mean of NDCG@10 and Recall@20 on the held-out part that chose them; None where there was none.
    """

    widths: Mapping[str, int]
    item_tower: Tower
    history_tower: Tower
    attention: Attention | None
    item_vectors: Float32Array
    history_vectors: Float32Array
    epochs: int
    quality: float | None

    def adapt(self, features: Mapping[str, Float32Array], count: int) -> tuple[Float32Array, Float32Array]:
        """Item and history vectors (count, dimension) of new items from their features, those that are missing being zeros.

        Raises `InvalidInput` for a feature that has another shape than in training.
        """
        rows = join_blocks({name: features.get(name) for name in self.widths}, self.widths, count)
        return self.item_tower(rows), self.history_tower(rows)

    def header(self) -> dict[str, Any]:
        """What `restored` needs beside the models and vectors, for JSON."""
        return {"widths": dict(self.widths), "epochs": self.epochs, "quality": self.quality}

    def models(self) -> dict[str, bytes]:
        """The ONNX models by name."""
        models = {"item": self.item_tower.model, "history": self.history_tower.model}
        return models if self.attention is None else models | {"attention": self.attention.model}

    @classmethod
    def restored(
        cls,
        header: Mapping[str, Any],
        models: Mapping[str, bytes],
        item_vectors: Float32Array,
        history_vectors: Float32Array,
        *,
        threads: int | None = None,
    ) -> Adapter:
        """The adapter of a `header`, its `models` and its vectors. Raises `CorruptFile` for bytes that are no model."""
        return cls(
            header["widths"],
            Tower(models["item"], threads),
            Tower(models["history"], threads),
            Attention(models["attention"], threads) if "attention" in models else None,
            item_vectors,
            history_vectors,
            header["epochs"],
            header["quality"],
        )


def join_blocks(features: Mapping[str, Float32Array | None], widths: Mapping[str, int], count: int) -> Float32Array:
    """(count, sum of widths) float32: unit blocks side by side, zeros for a feature that is None."""
    from llmrec_fast.kernels.cpu import fuse

    blocks = []
    for name, width in widths.items():
        block = features[name]
        if block is None:
            block = np.zeros((count, width), np.float32)
        if block.shape != (count, width):
            raise InvalidInput(f"the feature {name!r} must have the shape {(count, width)}; got {block.shape}")
        blocks.append(block)
    return fuse(blocks, [1.0] * len(blocks))
