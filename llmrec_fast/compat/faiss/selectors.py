"""Which labels a search or a removal is about: FAISS's `IDSelector` classes and `SearchParameters`. Nothing here searches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmrec_fast.arrays import ArrayLike, BoolArray, Int64Array, as_int64
from llmrec_fast.compat.faiss.metrics import FaissError


class IDSelector:
    """Base class: a predicate on labels."""

    def mask(self, labels: Int64Array) -> BoolArray:
        """For each label, whether it is selected."""
        raise NotImplementedError

    def places(self, count: int) -> BoolArray:
        """`mask` of the labels 0 .. count - 1."""
        return self.mask(np.arange(count, dtype=np.int64))

    def is_member(self, label: int) -> bool:
        """Whether one label is selected."""
        return bool(self.mask(np.array([label], np.int64))[0])


class IDSelectorAll(IDSelector):
    """Every label."""

    def mask(self, labels: Int64Array) -> BoolArray:
        """All True."""
        return np.ones(len(labels), bool)


class IDSelectorRange(IDSelector):
    """imin <= label < imax. `assume_sorted` is a hint that changes no answer."""

    def __init__(self, imin: int, imax: int, assume_sorted: bool = False) -> None:
        self.imin, self.imax, self.assume_sorted = int(imin), int(imax), bool(assume_sorted)

    def mask(self, labels: Int64Array) -> BoolArray:
        """Whether each label lies in the half-open range."""
        return (labels >= self.imin) & (labels < self.imax)

    def places(self, count: int) -> BoolArray:
        """The range, cut at both ends."""
        selected = np.zeros(count, bool)
        selected[max(self.imin, 0) : max(self.imax, 0)] = True
        return selected


class IDSelectorBatch(IDSelector):
    """The labels of an array; or, FAISS's older form, their number and the array."""

    def __init__(self, *args: ArrayLike) -> None:
        self._labels = np.unique(as_int64(_only(args, "subset"), "subset"))

    def mask(self, labels: Int64Array) -> BoolArray:
        """Whether each label is in the array."""
        return np.isin(labels, self._labels)

    def places(self, count: int) -> BoolArray:
        """The labels of the array that are below `count`."""
        selected = np.zeros(count, bool)
        start, stop = np.searchsorted(self._labels, (0, count))
        selected[self._labels[start:stop]] = True
        return selected


class IDSelectorArray(IDSelectorBatch):
    """The labels of an array. FAISS scans it once a row; here it is the same as `IDSelectorBatch`."""


class IDSelectorBitmap(IDSelector):
    """The labels whose bit is set: label i is bit i % 8 of byte i // 8. Labels beyond the bitmap are not selected.

    Takes the bytes, or, FAISS's older form, their number and the bytes.
    """

    def __init__(self, *args: ArrayLike) -> None:
        array = np.asarray(_only(args, "bitmap"))
        if array.ndim != 1 or array.dtype != np.uint8:
            raise FaissError(f"bitmap must be a one-dimensional uint8 array; got {array.dtype} {array.shape}")
        self._bits = np.unpackbits(array, bitorder="little").astype(bool)

    def mask(self, labels: Int64Array) -> BoolArray:
        """Whether each label's bit is set."""
        inside = (labels >= 0) & (labels < len(self._bits))
        selected = np.zeros(len(labels), bool)
        selected[inside] = self._bits[labels[inside]]
        return selected


class IDSelectorNot(IDSelector):
    """The labels that another selector does not select."""

    def __init__(self, sel: IDSelector) -> None:
        self.sel = _checked(sel, "sel")

    def mask(self, labels: Int64Array) -> BoolArray:
        """The opposite of the other selector."""
        return ~self.sel.mask(labels)

    def places(self, count: int) -> BoolArray:
        """The opposite of the other selector."""
        return ~self.sel.places(count)


class _Pair(IDSelector):
    def __init__(self, lhs: IDSelector, rhs: IDSelector) -> None:
        self.lhs, self.rhs = _checked(lhs, "lhs"), _checked(rhs, "rhs")


class IDSelectorAnd(_Pair):
    """The labels that both select."""

    def mask(self, labels: Int64Array) -> BoolArray:
        """lhs and rhs."""
        return self.lhs.mask(labels) & self.rhs.mask(labels)

    def places(self, count: int) -> BoolArray:
        """As `mask`."""
        return self.lhs.places(count) & self.rhs.places(count)


class IDSelectorOr(_Pair):
    """The labels that either selects."""

    def mask(self, labels: Int64Array) -> BoolArray:
        """lhs or rhs."""
        return self.lhs.mask(labels) | self.rhs.mask(labels)

    def places(self, count: int) -> BoolArray:
        """As `mask`."""
        return self.lhs.places(count) | self.rhs.places(count)


class IDSelectorXOr(_Pair):
    """The labels that exactly one selects."""

    def mask(self, labels: Int64Array) -> BoolArray:
        """lhs or rhs, not both."""
        return self.lhs.mask(labels) ^ self.rhs.mask(labels)

    def places(self, count: int) -> BoolArray:
        """As `mask`."""
        return self.lhs.places(count) ^ self.rhs.places(count)


class PyCallbackIDSelector(IDSelector):
    """The labels that a function is true for; it is called with every label of the index in turn."""

    def __init__(self, is_member: Callable[[int], bool]) -> None:
        if not callable(is_member):
            raise FaissError(f"is_member must be a function of a label; got {type(is_member).__name__}")
        self._is_member = is_member

    def mask(self, labels: Int64Array) -> BoolArray:
        """What the function says of each label."""
        return np.fromiter((bool(self._is_member(label)) for label in labels.tolist()), bool, len(labels))


class SearchParameters:
    """Options of one search: `sel`, the only labels to consider."""

    def __init__(self, *, sel: IDSelector | None = None) -> None:
        self.sel = None if sel is None else _checked(sel, "sel")


def selected(params: SearchParameters | None) -> IDSelector | None:
    """The selector that `params` holds, or None for all labels."""
    if params is None:
        return None
    if not isinstance(params, SearchParameters):
        raise FaissError(f"params must be SearchParameters; got {type(params).__name__}")
    return params.sel


def as_selector(x: IDSelector | ArrayLike) -> IDSelector:
    """`x` itself, or a selector of the labels in it."""
    return x if isinstance(x, IDSelector) else IDSelectorBatch(x)


def _only(args: tuple[ArrayLike, ...], name: str) -> ArrayLike:
    """The array of the arguments (array) or (n, array), of which the first n values count."""
    if len(args) == 1:
        return args[0]
    if len(args) == 2 and isinstance(args[0], int | np.integer) and 0 <= args[0] <= np.size(np.asarray(args[1])):
        return np.asarray(args[1])[: args[0]]
    raise FaissError(f"{name} must be an array, or a number and an array of at least so many values")


def _checked(sel: object, name: str) -> IDSelector:
    if not isinstance(sel, IDSelector):
        raise FaissError(f"{name} must be an IDSelector; got {type(sel).__name__}")
    return sel
