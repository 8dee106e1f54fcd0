"""Suite `pool`: token embeddings to sentence vectors (masked mean, then L2 normalisation), in one pass against several.

The work is what every sentence encoder does after its last layer: (texts, tokens, d) float32 embeddings and the number of
valid tokens of each text. Peers are the NumPy expression in common use, fastembed's own functions, and torch.

Bandwidth counts the bytes that must move, read plus written, over the time: pooling reads the valid tokens and writes one
vector a text; the yardstick, a plain `numpy.copyto` of those same valid tokens, reads and writes each byte once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Contender, Effort, compare
from benchmarks.peers import import_peers
from benchmarks.plots import Bars, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.threads import Neutral, use_threads

Array = npt.NDArray[Any]
SHAPE, QUICK_SHAPE = (256, 128, 384), (32, 16, 64)
# float32 sums of up to 128 tokens divided by a norm that is well away from zero
TOLERANCE = 1e-5
WANTED_SPEEDUP, WANTED_BANDWIDTH_PERCENT = 4.0, 60.0
EXPRESSION, COPY = "numpy expression", "numpy copy"
PEERS = [EXPRESSION, "fastembed", "torch"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=int, nargs=3, metavar=("TEXTS", "TOKENS", "D"), help=f"default: {SHAPE}")


def run(arguments: argparse.Namespace) -> Report:
    modules, missing = import_peers(["torch", "fastembed.common.utils"])
    neutral = Neutral(arguments.threads)
    report = Report("pool", "Token pooling: masked mean and normalisation", missing=missing)
    report.notes = [f"{arguments.threads} threads for everyone", *use_threads(arguments.threads)]
    shape = tuple(arguments.shape) if arguments.shape else QUICK_SHAPE if arguments.quick else SHAPE
    effort = Effort(seconds=arguments.seconds or (0.1 if arguments.quick else 4.0), minimum=5, maximum=101)
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal(shape, dtype=np.float32)
    for case, lengths in {
        "all valid": np.full(shape[0], shape[1]),
        "ragged": rng.integers(1, shape[1] + 1, shape[0]),
    }.items():
        cell = _measure(case, tokens, lengths, modules, neutral, effort)
        report.cells.append(cell)
        if shape == SHAPE:
            report.targets += _targets(cell)
    title = f"{report.title}, {' x '.join(map(str, shape))} float32, {arguments.threads} threads"
    path = arguments.output / "pool.svg"
    if problem := draw([_bars(cell) for cell in report.cells], path, title, columns=2):
        report.notes.append(problem)
    else:
        report.plots.append(path)
    return report


def _measure(
    case: str, tokens: Array, lengths: Array, modules: Mapping[str, ModuleType], neutral: Neutral, effort: Effort
) -> Cell:
    wanted = _oracle(tokens, lengths)

    def check(answer: Any) -> str:
        error = float(np.abs(np.asarray(answer) - wanted).max())
        return "" if error <= TOLERANCE else f"differs from float64 by {error:.2e}, more than {TOLERANCE:g}"

    ways = _ways(tokens, lengths, modules)
    contenders = [Contender(name, way, check, name == "llmrec_fast") for name, way in ways.items()]
    contenders.append(_copy(tokens, lengths))
    comparison = compare(contenders, neutral, effort)
    row_bytes = 4 * tokens.shape[2]
    read, written = int(lengths.sum()) * row_bytes, len(lengths) * row_bytes
    ours, copy = comparison.ours(), comparison.of(COPY)
    figures: dict[str, float | str] = {
        f"{EXPRESSION} / ours": comparison.of(EXPRESSION).median / ours.median,
        "ours, GB/s": (read + written) / ours.median / 1e9,
        "copy, GB/s": 2 * read / copy.median / 1e9,
        "bandwidth, % of the copy's": 100 * (read + written) / (2 * read) * copy.median / ours.median,
    }
    return Cell({"tokens": case, "valid": int(lengths.sum())}, comparison, figures, ratio_among=PEERS)


def _ways(tokens: Array, lengths: Array, modules: Mapping[str, ModuleType]) -> dict[str, Callable[[int], Any]]:
    from llmrec_fast.kernels import cpu

    texts, width, d = tokens.shape
    table, starts = tokens.reshape(-1, d), np.arange(texts) * width
    mask = (np.arange(width) < lengths[:, None]).astype(np.int64)  # as tokenizers hand it out
    ways: dict[str, Callable[[int], Any]] = {
        "llmrec_fast": lambda _: cpu.pool(table, starts, lengths, mode="mean", normalize=True),
        EXPRESSION: lambda _: _numpy_expression(tokens, mask),
    }
    if (fastembed := modules.get("fastembed.common.utils")) is not None:
        ways["fastembed"] = lambda _: fastembed.normalize(fastembed.mean_pooling(tokens, mask))
    if (torch := modules.get("torch")) is not None:
        tensor, mask_tensor = torch.from_numpy(tokens), torch.from_numpy(mask)
        ways["torch"] = lambda _: _torch_expression(torch, tensor, mask_tensor)
    return ways


def _oracle(tokens: Array, lengths: Array) -> Array:
    means = np.stack([rows[:length].mean(0, dtype=np.float64) for rows, length in zip(tokens, lengths, strict=True)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _numpy_expression(tokens: Array, mask: Array) -> Array:
    """Masked mean and normalisation as fastembed (to 0.7), Chroma, txtai and many ONNX examples write them, in float32."""
    weights = mask[..., None].astype(np.float32)
    means = (tokens * weights).sum(axis=1) / np.clip(weights.sum(axis=1), 1e-9, None)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _torch_expression(torch: ModuleType, tokens: Any, mask: Any) -> Any:
    """Masked mean and normalisation as sentence-transformers writes them."""
    with torch.inference_mode():
        weights = mask.unsqueeze(-1).expand(tokens.size()).to(tokens.dtype)
        means = (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(means, p=2, dim=1)


def _copy(tokens: Array, lengths: Array) -> Contender:
    """The yardstick: copy as many bytes as the valid tokens have, as one contiguous block (the easiest case for a copy)."""
    source = tokens.reshape(-1)[: int(lengths.sum()) * tokens.shape[2]]
    target = np.zeros_like(source)

    def copy(_: int) -> Array:
        np.copyto(target, source)
        return target

    return Contender(COPY, copy, lambda answer: "" if np.array_equal(answer, source) else "the copy differs")


def _targets(cell: Cell) -> list[Target]:
    case = cell.labels["tokens"]
    speedup, bandwidth = float(cell.figures[f"{EXPRESSION} / ours"]), float(cell.figures["bandwidth, % of the copy's"])
    return [
        Target(f"{case}: speed over the {EXPRESSION}", speedup, WANTED_SPEEDUP),
        Target(f"{case}: bandwidth against a {COPY}", bandwidth, WANTED_BANDWIDTH_PERCENT, unit="%"),
    ]


def _bars(cell: Cell) -> Bars:
    hot = {m.contender: 1e3 * m.median for m in cell.comparison.measurements if m.mode == "hot"}
    return Bars(f"{cell.labels['tokens']}, back to back", "milliseconds (median)", hot)
