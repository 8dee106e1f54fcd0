"""Settings of a recommender that a search found, as a file that other commands read."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from llmrec_fast.errors import InvalidInput
from llmrec_fast.recommender.collaborating import Model, check_model


@dataclass(frozen=True)
class TunedSettings:
    """Settings of `Recommender` that were best on the validation part.

    Attributes
    ----------
    weights, decay, rank, regularization, others, liked_from, reranker, collaborative, pooling, adapter : as `Recommender` takes
        them.
    quality : mean of NDCG@10 and Recall@20 on the validation part; optimistic, being the best of many.
    default_quality : the same of the first settings tried: EASE (or the first model named) of rank 256 (or the largest the
        data allow), regularization 500, others 0.25, decay 20 and weights text 0.1, popularity 0.3.
    trials : how many settings have been looked at, those of earlier runs of the study included.
    data : a checksum of the interactions, to tell whether an evaluation looks at what was tuned on.
    """

    weights: dict[str, float]
    decay: float
    rank: int
    regularization: float | None
    others: float
    liked_from: float | None
    reranker: Literal["trees", "neural"] | Literal[False]
    quality: float
    default_quality: float
    trials: int
    data: str
    collaborative: Model = "ease"
    pooling: str | None = None
    adapter: bool = False

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `Recommender`."""
        return {name: getattr(self, name) for name in _ARGUMENTS}

    def write(self, path: str | Path) -> None:
        """Write them as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> TunedSettings:
        """Read what `write` wrote. Raises `InvalidInput` for a file that is missing or something else."""
        try:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"cannot read settings from {path}: {error}") from error
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(saved, dict) or not needed <= set(saved) <= names:
            raise InvalidInput(
                f"{path} holds no settings as `llmrec-fast tune` writes them: {', '.join(sorted(names))}"
            )
        settings = cls(**saved)
        check_model(settings.collaborative, settings.regularization)
        return settings


_ARGUMENTS = (
    "weights",
    "decay",
    "rank",
    "regularization",
    "others",
    "liked_from",
    "reranker",
    "collaborative",
    "pooling",
    "adapter",
)
