"""Copying, pickling and merging of flat indexes: all by their rows, which are all that counts."""

from __future__ import annotations

from typing import Any, Self

from llmrec_fast.compat.faiss.metrics import FaissError


class CopiesRows:
    """What `IndexFlat` is copied, pickled and merged by."""

    def merge_from(self: Any, otherIndex: Any, add_id: int = 0) -> None:
        """Add the rows of another index of the same kind behind those here, and leave it empty."""
        if add_id:
            raise FaissError(f"add_id must be 0 for flat indexes, whose labels are places; got {add_id}")
        check_mergeable(self, otherIndex)
        self.add(otherIndex.reconstruct_n())
        otherIndex.reset()

    def __getstate__(self: Any) -> dict[str, Any]:
        return {"d": self.d, "metric": self.metric_type, "rows": self.reconstruct_n()}

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        self._start(state["d"], state["metric"])
        if len(state["rows"]):
            self.add(state["rows"])

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        copied.__setstate__(self.__getstate__())
        return copied


def check_mergeable(index: Any, other: Any) -> None:
    """Raise `FaissError` unless both are of one kind, dimension and metric, and two."""
    if type(other) is not type(index) or other is index or (other.d, other.metric_type) != (index.d, index.metric_type):
        raise FaissError(
            "otherIndex must be another index of the same kind, dimension and metric; got "
            f"{type(other).__name__} (d = {getattr(other, 'd', None)}) for {type(index).__name__} (d = {index.d})"
        )
