"""`python -m benchmarks cuda-report`: what the compiler made of the CUDA kernels, and how fast they can be at best.

Needs nvcc, no GPU. Nothing in the report is a measurement: registers, spills and instructions come from the compiler, rates
from data sheets.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType

from benchmarks.cuda_report.compiled import Compilation, Kernel, compile_all
from benchmarks.cuda_report.rooflines import DEVICES, works
from benchmarks.cuda_report.shared_memory import find_shared_bytes
from benchmarks.harness import Comparison
from benchmarks.report import Cell, Report, Target
from llmrec_fast.errors import InvalidInput

QUICK_ARCHITECTURES = ("75", "90")
# Kernels that stream the 4-bit codes: all that they read of them comes in loads of 16 bytes a thread.
CODE_STREAMS = ("scan_segment", "estimate_tiles")
REGISTERS_OF_A_MULTIPROCESSOR = 65536
WARP = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this suite."""
    parser.add_argument(
        "--architectures",
        default=None,
        help="compute capabilities, such as 80,90 (default: all that the compiler knows of those the package builds for)",
    )
    parser.add_argument(
        "--keep", type=Path, default=None, help="folder for the PTX, cubins and objects (default: discarded)"
    )


def run(arguments: argparse.Namespace) -> Report:
    """Compile, read what the compiler says, and set the kernels' work against data sheets."""
    report = Report("cuda-report", "CUDA kernels: compiler report and predicted limits")
    build = build_script()
    nvcc = build.find_nvcc(os.environ)
    if nvcc is None:
        report.missing["nvcc"] = (
            "neither in CUDA_HOME nor on the PATH; install the CUDA toolkit 12 or 13 for the compiler's part of this report"
        )
    else:
        known = build.supported(nvcc)
        default = QUICK_ARCHITECTURES if arguments.quick else build.ARCHITECTURES
        named = arguments.architectures.split(",") if arguments.architectures else []
        if unknown := [arch for arch in named if arch not in known]:
            raise InvalidInput(
                f"--architectures: {nvcc} does not know {', '.join(unknown)}; it knows {', '.join(known)}"
            )
        architectures = named or [arch for arch in default if arch in known]
        with tempfile.TemporaryDirectory() as folder:
            compilation = compile_all(nvcc, architectures, arguments.keep or Path(folder))
        shared, missing = ({}, "left out by --quick") if arguments.quick else find_shared_bytes()
        if missing:
            report.missing["emulated runtime"] = f"no dynamic shared memory: {missing}"
        _add_compilation(report, compilation, architectures, shared)
    report.notes.append(
        "Limits are predictions from data sheets, never measurements: launches, latency and survivors come on top. "
        "The rate of DP4A is an assumption (64 a clock and multiprocessor)."
    )
    report.cells += [
        Cell(
            {"kernel": work.kernel, "case": work.case},
            Comparison([], []),
            {
                "bytes a row": work.bytes,
                "operations a row": work.operations,
                **{
                    f"{device.name}: million rows/s, limit": f"{1e-6 / work.seconds(device):,.0f} {work.limit(device)}"
                    for device in DEVICES
                },
            },
            section="Predicted limits",
        )
        for work in works()
    ]
    return report


def build_script() -> ModuleType:
    """setup.py as a module. The report is about what the build would make: the same compiler, the same architectures."""
    spec = importlib.util.spec_from_file_location("setup_script", Path(__file__).parents[2] / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _add_compilation(
    report: Report, compilation: Compilation, architectures: list[str], shared: dict[str, int]
) -> None:
    kernels = compilation.kernels
    streams = [
        kernel for kernel in kernels if kernel.name.startswith(CODE_STREAMS) and kernel.integer_products != "none"
    ]
    report.figures["compiler"] = compilation.version
    report.figures["kernels"] = len({kernel.name for kernel in kernels})
    report.figures["architectures"] = " ".join(architectures)
    report.targets += [
        _at_most("spilled bytes, worst kernel", max(k.spill_stores + k.spill_loads for k in kernels), "bytes"),
        _at_most("stack, worst kernel", max(k.stack for k in kernels), "bytes"),
        _at_most(
            "accesses to local memory in the PTX", sum(k.ptx_instructions["local"] for k in kernels), "instructions"
        ),
        _at_most("compiler warnings", len(compilation.warnings), "lines"),
        Target(
            "widest load of the code stream, narrowest kernel",
            min((kernel.widest_load for kernel in streams), default=0),
            16,
            unit="bytes",
        ),
    ]
    if any(kernel.sass_instructions is None for kernel in kernels):
        report.missing["cuobjdump"] = (
            "no SASS counts; pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm, and put both on the PATH"
        )
    else:
        local = sum(kernel.sass_instructions["local"] for kernel in kernels if kernel.sass_instructions)
        report.targets.append(_at_most("accesses to local memory in the SASS", local, "instructions"))
    report.notes += [f"warning: {line}" for line in compilation.warnings]
    report.cells += [_cell(kernel, shared) for kernel in sorted(kernels, key=lambda k: (k.name, int(k.architecture)))]


def _at_most(name: str, reached: float, unit: str) -> Target:
    return Target(name, reached, 0, at_least=False, unit=unit)


def _cell(kernel: Kernel, shared: dict[str, int]) -> Cell:
    figures: dict[str, float | str] = {
        "registers": kernel.registers,
        "warps a multiprocessor holds by registers": _warps(kernel.registers),
        "static shared bytes": kernel.static_shared,
        "dynamic shared bytes": str(shared.get(kernel.mangled, "not known")),
        "stack bytes": kernel.stack,
        "spilled bytes": kernel.spill_stores + kernel.spill_loads,
        "loads in the PTX, by bytes": _widths(kernel.ptx_loads),
        "products of bytes": kernel.integer_products,
    }
    if kernel.sass_loads is not None and kernel.sass_instructions is not None:
        figures["loads in the SASS, by bytes"] = _widths(kernel.sass_loads)
        figures["DP4A, IMMA in the SASS"] = f"{kernel.sass_instructions['dp4a']}, {kernel.sass_instructions['mma']}"
    return Cell(
        {"kernel": kernel.name, "sm": kernel.architecture}, Comparison([], []), figures, section="Compiled kernels"
    )


def _widths(loads: dict[int, int]) -> str:
    return ", ".join(f"{width}: {count}" for width, count in sorted(loads.items(), reverse=True)) or "none"


def _warps(registers: int) -> int:
    """Registers are handed out to warps in units of 256; at most 64 warps, 32 on sm_75 and 48 on sm_86, 89 and 120."""
    return min(64, REGISTERS_OF_A_MULTIPROCESSOR // (-(-registers * WARP // 256) * 256))
