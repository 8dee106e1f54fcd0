"""The matrices of the CUDA kernels: rows of float32, float16 or bfloat16 in, float32 out."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.checks import check_rows
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, is_host
from llmrec_fast.kernels.cuda.views import DeviceView

ELEMENTS = ("float32", "float16", "bfloat16")  # numbered as in csrc/elements.h


def rows_view(here: Runtime, name: str, array: Any, place: Place) -> DeviceView:
    """A matrix for kernels on `place`. Host arrays are converted like on the CPU, device arrays must fit as they are."""
    return here.on_device(name, check_rows(array, name) if is_host(array) else array, place).expect(
        ELEMENTS, [None, None]
    )


def out_view(here: Runtime, out: Any, shape: tuple[int, int], place: Place) -> DeviceView:
    """The caller's `out` on the device, or a new array of this shape."""
    if out is None:
        return here.new("out", shape, np.float32, place)
    if is_host(out):
        raise InvalidInput("out must be on the device when the inputs are; got a host array")
    view = here.on_device("out", out, place).expect(["float32"], shape)
    if not view.writeable:
        raise InvalidInput("out must be writeable")
    return view
