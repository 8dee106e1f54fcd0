"""`pool` on a GPU: checks what the host can see, then one launch (two where few segments are cut in pieces).

Cost: reads every row of every segment once and writes 4 bytes a column and segment. Launches only; nothing is waited for
unless all arguments are NumPy arrays.
"""

from __future__ import annotations

from typing import Any

from llmrec_fast.arrays import as_int64, as_vector
from llmrec_fast.kernels.checks import POOL_MODES, PoolMode, check_index, check_mode, check_pool, check_segments
from llmrec_fast.kernels.cuda.elements import ELEMENTS, out_view, rows_view
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, is_host, runtime


def pool(
    table: Any,
    starts: Any,
    lengths: Any,
    *,
    index: Any = None,
    weights: Any = None,
    mode: PoolMode = "mean",
    normalize: bool = False,
    out: Any = None,
    threads: int | None = None,
) -> Any:
    """Reduce segments of rows to one vector each; see `llmrec_fast.kernels.cpu.pool` for the meaning.

    Every array may be on the host or on the device; `out` must be where the result will be. Device arrays are C-contiguous:
    the table and blocks float32, float16 or bfloat16, integers int64, weights float32. `threads` has no effect.

    Returns
    -------
    (segments, d) float32: a device array if any argument is one, else a NumPy array.

    Raises
    ------
    InvalidInput : as on the CPU, and for arrays on different devices or with another dtype or layout than above. What is
        already on the device cannot be looked at without waiting for it: a segment or row that is out of range there gives
        NaN instead, and nothing outside is read.
    DeviceUnavailable, MissingDependency : there is no usable GPU.
    """
    here = runtime()
    place, on_device = here.find_place(
        {"table": table, "starts": starts, "lengths": lengths, "index": index, "weights": weights, "out": out}
    )
    if on_device:
        return _pool_on_device(here, place, table, starts, lengths, index, weights, mode, normalize, out)
    checked = check_pool(table, starts, lengths, index, weights, mode, out)
    result = _pool_on_device(
        here,
        place,
        checked.table,
        checked.starts,
        checked.lengths,
        checked.index,
        checked.weights,
        mode,
        normalize,
        None,
    )
    checked.out[...] = here.memory.download(result, place)
    return checked.out


def _pool_on_device(
    here: Runtime,
    place: Place,
    table: Any,
    starts: Any,
    lengths: Any,
    index: Any,
    weights: Any,
    mode: PoolMode,
    normalize: bool,
    out: Any,
) -> Any:
    check_mode(mode, weighted=weights is not None)
    starts, lengths, index = (
        _as_integers(*pair) for pair in ((starts, "starts"), (lengths, "lengths"), (index, "index"))
    )
    rows = rows_view(here, "table", table, place)
    count, columns = rows.shape
    index_view = None if index is None else here.on_device("index", index, place).expect(["int64"], [None])
    positions = count if index_view is None else index_view.shape[0]
    start_view = here.on_device("starts", starts, place).expect(["int64"], [None])
    segments = start_view.shape[0]
    length_view = here.on_device("lengths", lengths, place).expect(["int64"], [segments])
    if is_host(starts) and is_host(lengths):
        check_segments(starts, lengths, positions, "table" if index is None else "index")
    if index is not None and is_host(index):
        check_index(index, count)
    weight_view = None
    if weights is not None:
        host_weights = as_vector(weights, "weights", length=positions) if is_host(weights) else weights
        weight_view = here.on_device("weights", host_weights, place).expect(["float32"], [positions])
    result = out_view(here, out, (segments, columns), place)
    mode_number = POOL_MODES.index(mode)
    size = here.extension.pool_workspace_bytes(
        segments=segments, positions=positions, columns=columns, mode=mode_number
    )
    with here.workspace(size, place) as (workspace, workspace_bytes):
        here.extension.pool(
            device=place.device,
            stream=place.stream,
            table=rows.pointer,
            element=ELEMENTS.index(rows.dtype),
            rows=count,
            columns=columns,
            starts=start_view.pointer,
            lengths=length_view.pointer,
            segments=segments,
            index=0 if index_view is None else index_view.pointer,
            weights=0 if weight_view is None else weight_view.pointer,
            positions=positions,
            mode=mode_number,
            normalize=normalize,
            out=result.pointer,
            workspace=workspace,
            workspace_bytes=workspace_bytes,
        )
    return result.owner if out is None else out


def _as_integers(array: Any, name: str) -> Any:
    return as_int64(array, name) if array is not None and is_host(array) else array
