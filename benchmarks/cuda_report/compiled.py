"""What the compiler says about every kernel: compile `csrc/` as setup.py does, then read ptxas's report, the PTX and the SASS.

Registers, stack and spills are what ptxas reports for each architecture. Widths of loads and special instructions are
counted in the PTX that it compiled, and in the SASS where cuobjdump is installed (pip install nvidia-cuda-cuobjdump
nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_PROPERTIES = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
_PTX_KERNEL = re.compile(r"^\.visible \.entry (\w+)\((.*?)^\}", re.MULTILINE | re.DOTALL)
_PTX_LOAD = re.compile(r"\bld(?:\.volatile|\.relaxed\.\w+|\.weak)?\.global\S*?(?:\.(v[24]))?\.[a-z](8|16|32|64)\b")
_SASS_KERNEL = re.compile(r"^\s*Function : (\w+)$", re.MULTILINE)
_SASS_LOAD = re.compile(r"\bLDG((?:\.\w+)*)\s")
_SASS_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}


@dataclass
class Kernel:
    """One kernel on one architecture."""

    name: str
    architecture: str
    mangled: str = ""
    registers: int = 0
    static_shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    ptx_loads: Counter[int] = field(default_factory=Counter)  # by bytes of one thread's load from global memory
    ptx_instructions: Counter[str] = field(default_factory=Counter)
    sass_loads: Counter[int] | None = None
    sass_instructions: Counter[str] | None = None

    @property
    def widest_load(self) -> int:
        return max(self.ptx_loads, default=0)

    @property
    def integer_products(self) -> str:
        """Which hardware the kernel asks for its products of bytes."""
        found = self.ptx_instructions
        names = [name for name, count in (("DP4A", found["dp4a"]), ("IMMA", found["mma"])) if count]
        return " ".join(names) or "none"


@dataclass
class Compilation:
    """All kernels of `csrc/` on all architectures, and what else the compiler had to say."""

    kernels: list[Kernel]
    warnings: list[str]
    version: str


def compile_all(nvcc: str, architectures: Sequence[str], folder: Path) -> Compilation:
    """Compile every `.cu` file for these compute capabilities; intermediate files go to `folder`."""
    sources = sorted(CSRC.glob("*.cu"), key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        logs = list(pool.map(lambda source: _compile(nvcc, source, architectures, folder / source.stem), sources))
    kernels = [kernel for log in logs for kernel in read_ptxas(log)]
    by_key = {(kernel.name, kernel.architecture): kernel for kernel in kernels}
    for source in sources:
        for architecture in architectures:
            ptx = folder / source.stem / f"{source.stem}.compute_{architecture}.ptx"
            if not ptx.exists():  # nvcc leaves out the suffix where there is one architecture only
                ptx = folder / source.stem / f"{source.stem}.ptx"
            for name, body in _ptx_kernels(ptx.read_text()):
                count_ptx(by_key[name, architecture], body)
        _add_sass(by_key, folder / source.stem / f"{source.stem}.o", architectures)
    names = demangle(sorted({kernel.name for kernel in kernels}))
    for kernel in kernels:
        kernel.name = names[kernel.name]
    warnings = [line for log in logs for line in log.splitlines() if "warning" in line.lower()]
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return Compilation(kernels, warnings, version.strip().splitlines()[-1])


def _compile(nvcc: str, source: Path, architectures: Sequence[str], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
    flags = [
        "-std=c++17",
        "-O3",
        "-Xcompiler",
        "-fPIC,-Wall,-Wextra",
        f"-I{CSRC}",
        f"-I{sysconfig.get_paths()['include']}",
    ]
    keep = ["--keep", "--keep-dir", str(folder), "-Xptxas", "-v"]
    command = [nvcc, *flags, *codes, *keep, "-c", str(source), "-o", str(folder / f"{source.stem}.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stderr


def read_ptxas(log: str) -> Iterator[Kernel]:
    """The kernels of the output of `ptxas -v`, with what it says about them."""
    kernel = None
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernel = Kernel(entry[1], entry[2], mangled=entry[1])
            yield kernel
        elif kernel is not None and (properties := _PROPERTIES.search(line)):
            kernel.stack, kernel.spill_stores, kernel.spill_loads = map(int, properties.groups())
        elif kernel is not None and (used := _REGISTERS.search(line)):
            kernel.registers, kernel.static_shared = int(used[1]), int(used[2] or 0)


def _ptx_kernels(ptx: str) -> list[tuple[str, str]]:
    return [(name, body) for name, body in _PTX_KERNEL.findall(ptx)]


def count_ptx(kernel: Kernel, body: str) -> None:
    """Count a kernel's loads from global memory by width, and the instructions that matter here, in its PTX."""
    for vector, bits in _PTX_LOAD.findall(body):
        kernel.ptx_loads[int(bits) // 8 * int(vector[1:] or 1)] += 1
    for name, pattern in {"dp4a": r"\bdp4a\.", "mma": r"\bmma\.sync", "cp.async": r"\bcp\.async\.c[ag]"}.items():
        kernel.ptx_instructions[name] += len(re.findall(pattern, body))
    # the PTX's own local arrays; what ptxas spills is in its report
    kernel.ptx_instructions["local"] += len(re.findall(r"\b(?:ld|st)\.local\b", body))


def _add_sass(kernels: dict[tuple[str, str], Kernel], made: Path, architectures: Sequence[str]) -> None:
    tool = shutil.which("cuobjdump")
    if tool is None:
        return
    for architecture in architectures:
        command = [tool, "-sass", "-arch", f"sm_{architecture}", str(made)]
        sass = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name, body in sass_kernels(sass):
            if (name, architecture) in kernels:
                count_sass(kernels[name, architecture], body)


def sass_kernels(sass: str) -> list[tuple[str, str]]:
    """Names and code of the functions in the output of `cuobjdump -sass`."""
    parts = _SASS_KERNEL.split(sass)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def count_sass(kernel: Kernel, body: str) -> None:
    """The same counts in the machine code."""
    kernel.sass_loads = Counter(
        next((_SASS_WIDTHS[word] for word in suffixes.split(".") if word in _SASS_WIDTHS), 4)
        for suffixes in _SASS_LOAD.findall(body)
    )
    patterns = {"dp4a": r"\bIDP\.4A", "mma": r"\bIMMA\.", "cp.async": r"\bLDGSTS\.", "local": r"\b(?:LDL|STL)\b"}
    kernel.sass_instructions = Counter({name: len(re.findall(pattern, body)) for name, pattern in patterns.items()})


def demangle(names: Sequence[str]) -> dict[str, str]:
    """Readable names, without namespaces and parameters; the given ones where c++filt is missing."""
    tool = shutil.which("c++filt")
    if tool is None:
        return {name: name for name in names}
    plain = subprocess.run([tool, *names], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: shorten(text) for name, text in zip(names, plain, strict=True)}


def shorten(signature: str) -> str:
    """`void llmrec::pool_segments<llmrec::Float32, 4, true>(llmrec::PoolWork)` as `pool_segments<Float32, 4, true>`."""
    text = re.sub(r"\((?!llmrec::\w+\)\d).*\)$", "", signature.removeprefix("void "))
    return re.sub(r"\(llmrec::\w+\)", "", text).replace("llmrec::", "")
