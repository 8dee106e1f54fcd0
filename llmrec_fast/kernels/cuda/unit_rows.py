"""Rows of unit length on a GPU, as an index for cosines stores and searches them.

Norm and quotient are in float64 and rounded to float32 once, as on the CPU. Sums are taken in another order there, which
changes the last bit of a value about once in 10^8.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime
from llmrec_fast.kernels.cuda.views import DeviceView


def unit_rows(here: Runtime, place: Place, rows: DeviceView) -> DeviceView:
    """A copy of (n, d) float32 rows, divided by their norms; zero rows stay zero."""
    out = here.new(rows.name, rows.shape, np.float32, place)
    divide_by_norms(here, place, rows, out)
    return out


def divide_by_norms(here: Runtime, place: Place, rows: DeviceView, out: DeviceView) -> None:
    """Write them to `out`."""
    count, dim = rows.shape
    here.extension.unit_rows(
        device=place.device, stream=place.stream, rows=rows.pointer, count=count, dim=dim, out=out.pointer
    )
