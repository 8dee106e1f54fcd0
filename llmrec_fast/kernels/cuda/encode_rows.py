"""`encode_rows` on a GPU: rotate and quantise rows into the codes that `bounded_search` scans there.

Cost of a row: 2 d^2 float32 operations to rotate, about 40 d to quantise; reads 4 d bytes, writes `plan.bytes_a_row`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.codes import SUMMARY, Codes, ScanPlan
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime
from llmrec_fast.kernels.cuda.scan_codes import DeviceCodes, DevicePlan, codes_to_device, empty_device_codes
from llmrec_fast.kernels.cuda.views import DeviceView


def encode_rows(
    rows: Any,
    plan: ScanPlan,
    *,
    bias: Any = None,
    out: Codes | DeviceCodes | None = None,
    threads: int | None = None,
) -> DeviceCodes:
    """Codes of `rows` on the device, appended to `out` if given; see `llmrec_fast.kernels.cpu.encode_rows`.

    Parameters
    ----------
    rows : (n, d) float32, finite, on the host or on the device.
    bias : (n,) float32, or None for zeros. For Euclidean distance the plan makes its own.
    out : codes with room for n more rows, which are written behind those it has. Codes on the host are copied first.
    threads : has no effect.

    Raises
    ------
    InvalidInput : other shapes or dtypes, arrays on different devices, no room in `out`.
    DeviceUnavailable, MissingDependency : there is no usable GPU.
    """
    here = runtime()
    place, _ = here.find_place({"rows": rows, "bias": bias})
    row_view = here.on_device("rows", rows, place).expect(["float32"], [None, plan.dim])
    count = row_view.shape[0]
    bias_view = None if bias is None else here.on_device("bias", bias, place).expect(["float32"], [count])
    codes = empty_device_codes(plan, count, here, place) if out is None else codes_to_device(out, here, place)
    return encode_views(here, place, row_view, bias_view, codes)


def encode_views(
    here: Runtime, place: Place, rows: DeviceView, bias: DeviceView | None, codes: DeviceCodes
) -> DeviceCodes:
    """`encode_rows` of what is on the device and checked. Waits for the summary."""
    count, plan = rows.shape[0], codes.plan.plan
    if codes.rows + count > codes.capacity:
        raise InvalidInput(f"out has room for {codes.capacity} rows and holds {codes.rows}; {count} more do not fit")
    if count == 0:
        return codes
    summary = here.on_device("summary", np.zeros(SUMMARY), place)
    shape = shape_of(here, plan)
    size = here.extension.encode_workspace_bytes(shape=shape, count=count)
    with here.workspace(size, place) as (workspace, workspace_bytes):
        here.extension.encode(
            device=place.device,
            stream=place.stream,
            shape=shape,
            plan=plan_view(here, codes.plan),
            rows=rows.pointer,
            bias=0 if bias is None else bias.pointer,
            count=count,
            place=codes.rows,
            row_slack=plan.row_slack,
            first=codes.first.pointer,
            second=codes.second.pointer,
            third=codes.third.pointer,
            third_terms=codes.third_terms.pointer,
            summary=summary.pointer,
            workspace=workspace,
            workspace_bytes=workspace_bytes,
        )
    measured = here.memory.download(summary.owner, place)
    return replace(codes, described=codes.described.grown(count, measured))


def shape_of(here: Runtime, plan: ScanPlan) -> Any:
    """The plan's widths, as the extension takes them."""
    return here.extension.ScanShape(
        dim=plan.dim, first=plan.first, second=plan.second, third=plan.third, euclidean=plan.euclidean
    )


def plan_view(here: Runtime, plan: DevicePlan) -> Any:
    """The plan's numbers and pointers, as the extension takes them."""
    return here.extension.PlanView(
        mean=plan.mean.pointer,
        rotation=0 if plan.rotation is None else plan.rotation.pointer,
        scale=plan.plan.scale,
        bias_centre=plan.plan.bias_centre,
        bias_radius=plan.plan.bias_radius,
    )
