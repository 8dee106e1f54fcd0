"""Dynamic shared memory of each kernel, which no compiler knows: as the launchers ask for it on the emulated runtime.

Runs every operation once on tests/simt at the sizes of a sentence encoder, which needs g++ and takes a minute to compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llmrec_fast.kernels.cuda.runtime import Runtime

COLUMNS, ROWS = 384, 600
QUERIES = (1, 2, 4, 8, 16, 32, 64)


def find_shared_bytes() -> tuple[dict[str, int], str]:
    """Bytes by the kernels' mangled names, and why some or all are missing (empty: none is)."""
    from tests.simt import build

    if (reason := build.missing_for_module()) is not None:
        return {}, reason
    from llmrec_fast.kernels.cuda.runtime import using
    from tests.simt.memory import Emulation

    emulation = Emulation()
    with using(emulation.runtime):
        _run_everything(emulation.runtime)
    return emulation.shared_bytes(), ""


def _run_everything(here: Runtime) -> None:
    import ml_dtypes

    from llmrec_fast.kernels import cuda
    from llmrec_fast.kernels.codes import ScanSegment, allowed_bits, panels_of
    from llmrec_fast.kernels.cuda.scan_codes import codes_to_host
    from llmrec_fast.kernels.cuda.unit_rows import unit_rows
    from llmrec_fast.retrieval.fitting import fit_plan

    # a falling spectrum, as embeddings have it
    spectrum = np.exp(-np.arange(COLUMNS) / 40)
    rows = (np.random.default_rng(0).standard_normal((ROWS, COLUMNS)) * spectrum).astype(np.float32)
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        for table in (rows.astype(dtype), rows[:, : COLUMNS - 1].astype(dtype)):
            for mode in ("mean", "max"):
                cuda.pool(table, [0], [ROWS], mode=mode, normalize=True)
            cuda.fuse([table[:8]], [1.0])
    on_device = cuda.encode_rows(rows, fit_plan(rows, None, rows=ROWS, euclidean=False))
    place = here.memory.current_place()
    unit_rows(here, place, here.on_device("rows", rows[:8], place))
    allowed, bias = allowed_bits(ROWS, panels_of(ROWS)), np.zeros(ROWS, np.float32)
    for codes in (codes_to_host(on_device, here, place), None):
        for queries in QUERIES:
            cuda.bounded_search([ScanSegment(0, rows, bias, allowed, codes)], rows[:queries], 10, euclidean=False)
