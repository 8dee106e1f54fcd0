"""`fuse` on a GPU: one launch a block of columns, each of which reads its block once and writes its part of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.checks import check_equal_rows, check_fuse, roots_of_weights
from llmrec_fast.kernels.cuda.elements import ELEMENTS, out_view, rows_view
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime


def fuse(blocks: Sequence[Any], weights: Sequence[float], *, out: Any = None, threads: int | None = None) -> Any:
    """Per row: normalise each block, scale it by the root of its weight, concatenate; see `llmrec_fast.kernels.cpu.fuse`.

    Blocks may be on the host or on the device (C-contiguous float32, float16 or bfloat16 there); `out` must be where the
    result will be. `threads` has no effect.

    Returns
    -------
    (n, sum of d_f) float32: a device array if any block is one, else a NumPy array.

    Raises
    ------
    InvalidInput : as on the CPU, and for arrays on different devices or with another dtype or layout than above.
    DeviceUnavailable, MissingDependency : there is no usable GPU.
    """
    here = runtime()
    places = {f"blocks[{position}]": block for position, block in enumerate(blocks)}
    place, on_device = here.find_place({**places, "out": out})
    if on_device:
        if not len(blocks):
            raise InvalidInput("fuse needs at least one block")
        return _fuse_on_device(here, place, blocks, roots_of_weights(weights, len(blocks)), out)
    arrays, roots, host_out = check_fuse(blocks, weights, out)
    host_out[...] = here.memory.download(_fuse_on_device(here, place, arrays, roots, None), place)
    return host_out


def _fuse_on_device(here: Runtime, place: Place, blocks: Sequence[Any], roots: Sequence[float], out: Any) -> Any:
    views = [rows_view(here, f"blocks[{position}]", block, place) for position, block in enumerate(blocks)]
    check_equal_rows([view.shape[0] for view in views])
    rows, columns = views[0].shape[0], sum(view.shape[1] for view in views)
    result = out_view(here, out, (rows, columns), place)
    first_column = 0
    for view, root in zip(views, roots, strict=True):
        here.extension.fuse(
            device=place.device,
            stream=place.stream,
            block=view.pointer,
            element=ELEMENTS.index(view.dtype),
            rows=rows,
            columns=view.shape[1],
            root=root,
            out=result.pointer,
            out_columns=columns,
            first_column=first_column,
        )
        first_column += view.shape[1]
    return result.owner if out is None else out
