"""Pooling of the suite `gpu`: padded token embeddings to unit sentence vectors, one pass against several."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gpu.device import Device
from benchmarks.gpu.retrieval import OURS, Modules, works
from benchmarks.harness import Contender, Effort, compare
from benchmarks.plots import Bars
from benchmarks.report import Cell, Report
from benchmarks.threads import Neutral

SECTION = "pooling"
# float32 sums of some hundred tokens divided by a norm that is well away from zero
TOLERANCE = 1e-5


def run(
    report: Report,
    shape: tuple[int, int, int],
    device: Device,
    modules: Modules,
    neutral: Neutral,
    effort: Effort,
) -> None:
    """Add one cell to `report` for texts of random lengths."""
    texts, width, columns = shape
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal(shape, dtype=np.float32)
    lengths = rng.integers(1, width + 1, texts)
    wanted = np.stack([rows[:length].mean(0, dtype=np.float64) for rows, length in zip(tokens, lengths, strict=True)])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)

    def check(answer: Any) -> str:
        error = float(np.abs(device.download(answer) - wanted).max())
        return "" if error <= TOLERANCE else f"differs from float64 by {error:.2e}, more than {TOLERANCE:g}"

    def waiting(way: Any) -> Any:
        def call(_: int) -> Any:
            answer = way()
            device.synchronize()
            return answer

        return call

    ways = _ways(tokens, lengths, device, modules)
    notes: list[str] = []
    contenders = [Contender(name, waiting(way), check, name == OURS) for name, way in ways.items()]
    contenders = [contender for contender in contenders if contender.ours or works(contender, notes)]
    comparison = compare(contenders, neutral, effort)
    comparison.notes += notes
    moved = 4 * columns * (int(lengths.sum()) + texts)
    figures: dict[str, float | str] = {"ours, GB/s": moved / comparison.ours().median / 1e9}
    labels: dict[str, str | int | float] = {"texts": texts, "tokens": width, "d": columns}
    report.cells.append(Cell(labels, comparison, figures, section=SECTION))


def bars(report: Report) -> list[Bars]:
    """One plot a shape."""
    cells = [cell for cell in report.cells if cell.section == SECTION]
    return [
        Bars(
            f"pooling {' x '.join(str(value) for value in cell.labels.values())}",
            "milliseconds (median)",
            {m.contender: 1e3 * m.median for m in cell.comparison.measurements if m.mode == "hot"},
        )
        for cell in cells
    ]


def _ways(tokens: Any, lengths: Any, device: Device, modules: Modules) -> dict[str, Any]:
    from llmrec_fast.kernels import cuda

    texts, width, columns = tokens.shape
    table = device.upload(tokens.reshape(-1, columns))
    starts, sizes = device.upload(np.arange(texts) * width), device.upload(lengths)
    ways = {OURS: lambda: cuda.pool(table, starts, sizes, mode="mean", normalize=True)}
    mask = (np.arange(width) < lengths[:, None]).astype(np.float32)
    if (cupy := modules.get("cupy")) is not None:
        own, own_mask = cupy.asarray(tokens), cupy.asarray(mask)

        def by_cupy() -> Any:
            means = (own * own_mask[..., None]).sum(axis=1) / own_mask.sum(axis=1, keepdims=True)
            return means / cupy.linalg.norm(means, axis=1, keepdims=True)

        ways["cupy"] = by_cupy
    torch = modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        tensor, tensor_mask = torch.from_numpy(tokens).cuda(), torch.from_numpy(mask).cuda()

        def by_torch() -> Any:
            with torch.inference_mode():
                means = (tensor * tensor_mask.unsqueeze(-1)).sum(1) / tensor_mask.sum(1, keepdim=True)
                return torch.nn.functional.normalize(means, p=2, dim=1)

        ways["torch"] = by_torch
    return ways
