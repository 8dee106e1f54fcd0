"""Build hook: metadata is in pyproject.toml; this file builds the CUDA extension `llmrec_fast._cuda` where it is wanted.

Environment variables decide:

LLMREC_CUDA : `auto` (default): build if nvcc and an NVIDIA driver are present, for the GPUs that are there. `1`: build always,
    for all of LLMREC_CUDA_ARCHS. `0`: never.
LLMREC_CUDA_ARCHS : compute capabilities, such as "80 90"; the newest one is included as PTX too, for GPUs to come.
CUDA_HOME : the toolkit; without it nvcc is looked for on the PATH and in /usr/local/cuda.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "csrc"
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
EXTENSION = "llmrec_fast._cuda"


class BuildError(Exception):
    """What is missing or was set wrongly, and what to do."""


def find_nvcc(environment: Mapping[str, str]) -> str | None:
    """Path of nvcc, or None."""
    folders = [Path(environment[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    path = os.pathsep.join([*map(str, folders), environment.get("PATH", os.defpath), "/usr/local/cuda/bin"])
    return shutil.which("nvcc", path=path)


def gpus() -> list[str]:
    """Compute capabilities of the GPUs of this machine, without the point; empty without an NVIDIA driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return sorted(
        {line.strip().replace(".", "") for line in done.stdout.splitlines() if re.fullmatch(r"\s*\d+\.\d\s*", line)}
    )


def supported(nvcc: str) -> list[str]:
    """Architectures that this nvcc compiles for."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"compute_(\d+)\b", listed)


def choose_architectures(
    environment: Mapping[str, str],
    nvcc: str | None,
    present: list[str],
    list_known: Callable[[str], list[str]] = supported,
) -> tuple[str, ...]:
    """For which architectures the extension is built; empty: it is not built. Raises `BuildError`.

    `nvcc` is not run, through `list_known`, where nothing is built: a broken one must not stop a plain install.
    """
    wanted = environment.get("LLMREC_CUDA", "auto").strip() or "auto"
    if wanted not in ("auto", "0", "1"):
        raise BuildError(f"LLMREC_CUDA must be auto, 1 or 0; got {wanted!r}")
    named = environment.get("LLMREC_CUDA_ARCHS", "").replace(",", " ").replace(";", " ").replace(".", "").split()
    if wanted == "0" or (wanted == "auto" and (nvcc is None or not present)):
        return ()
    if nvcc is None:
        raise BuildError("LLMREC_CUDA=1 needs nvcc (CUDA toolkit 12 or 13) on the PATH or in CUDA_HOME; none was found")
    known = list_known(nvcc)
    if unknown := [arch for arch in named if arch not in known]:
        raise BuildError(f"LLMREC_CUDA_ARCHS: {nvcc} does not know {', '.join(unknown)}; it knows {', '.join(known)}")
    default = present if wanted == "auto" else ARCHITECTURES
    chosen = named or [arch for arch in default if arch in known]
    if not chosen:
        raise BuildError(f"{nvcc} knows none of {', '.join(default)}; set LLMREC_CUDA=0 to install without CUDA")
    return tuple(sorted(set(chosen), key=int))


class BuildCuda(build_ext):
    """Compiles and links everything with nvcc, which finds its own headers and libraries."""

    def build_extension(self, ext: Extension) -> None:
        """Compile each source for all architectures, as many at a time as there are cores, and link them."""
        import pybind11

        nvcc, architectures = find_nvcc(os.environ), ext.define_macros[0][1].split()
        common = [nvcc, "-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra", f"-I{SOURCES}"]
        common += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
        common += [f'-DLLMREC_ARCHITECTURES="{" ".join(architectures)}"']
        if os.environ.get("CXX"):
            common += ["-ccbin", os.environ["CXX"]]
        codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
        codes += [f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"]
        folder = Path(self.build_temp)
        folder.mkdir(parents=True, exist_ok=True)
        objects = {source: folder / f"{Path(source).name}.o" for source in ext.sources}
        calls = [
            [*common, *(codes if source.endswith(".cu") else []), "-c", str(ROOT / source), "-o", str(target)]
            for source, target in objects.items()
        ]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(self.spawn, calls))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.spawn([nvcc, "-shared", "-cudart", "static", *map(str, objects.values()), "-o", str(target)])


def extensions() -> list[Extension]:
    """The CUDA extension, or nothing where it is not wanted."""
    nvcc = find_nvcc(os.environ)
    architectures = choose_architectures(os.environ, nvcc, gpus())
    if not architectures:
        return []
    # largest first: the last one to be compiled should not be the longest
    sources = sorted([*SOURCES.glob("*.cu"), SOURCES / "bindings.cpp"], key=lambda path: -path.stat().st_size)
    headers = [*SOURCES.glob("*.cuh"), *SOURCES.glob("*.h")]
    return [
        Extension(
            EXTENSION,
            [str(path.relative_to(ROOT)) for path in sources],
            define_macros=[("LLMREC_ARCHITECTURES", " ".join(architectures))],
            depends=[str(path.relative_to(ROOT)) for path in headers],
        )
    ]


if __name__ == "__main__":
    try:
        setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCuda})
    except BuildError as error:
        sys.exit(f"error: {error}")
