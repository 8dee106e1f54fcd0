"""Build what runs on the stand-in for CUDA: kernels and launchers exactly as nvcc gets them, compiled by g++.

Three variants of everything: `plain`; `sanitized`, with the address and undefined-behaviour sanitizers; `races`, in which
every load and store reports to the race check. Results are kept in a cache folder by the hash of all that goes in.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

Variant = Literal["plain", "sanitized", "races"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests" / "simt"
CSRC = ROOT / "csrc"

# -fwrapv: device integers wrap. -ffp-contract=off: a kernel that wants a fused operation says fmaf.
_COMMON = [
    "-std=c++17",
    "-g1",
    "-fPIC",
    "-fwrapv",
    "-ffp-contract=off",
    "-fno-gnu-unique",
    "-Wall",
    "-Wextra",
    "-Werror",
]
_COMMON += ["-Wno-unknown-pragmas", "-DLLMREC_EMULATED", f"-I{CSRC}", f"-I{STAND_IN.parent}"]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
_KERNEL_FLAGS: dict[Variant, list[str]] = {
    "plain": ["-O1"],
    "sanitized": ["-O1", *_SANITIZERS],
    # without inlining a report would name the caller; -O1 keeps locals in registers, which nobody can race for
    "races": ["-O1", "-fsanitize=thread"],
}
_ENGINE_FLAGS: dict[Variant, list[str]] = {"plain": ["-O2"], "sanitized": ["-O1", *_SANITIZERS], "races": ["-O2"]}


def missing_tools() -> str | None:
    """Why nothing can be built here, or None."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    return None


def missing_for_module() -> str | None:
    """Why the emulated extension module cannot be built here, or None."""
    if (reason := missing_tools()) is not None:
        return reason
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python.h is not installed (package python3-dev)"
    return None if importlib.util.find_spec("pybind11") else "pybind11 is not installed"


def build_module(variant: Variant) -> Path:
    """The extension module `_cuda` on the stand-in; returns the path of the shared library."""
    import pybind11

    python = [
        f"-I{pybind11.get_include()}",
        f"-I{sysconfig.get_paths()['include']}",
        "-fvisibility=hidden",
        "-g0",
        "-O0",
    ]
    sources = [*sorted(CSRC.glob("*.cu")), CSRC / "bindings.cpp"]
    return _build(
        variant, sources, f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}", ["-shared"], {"bindings.cpp": python}
    )


def build_library(variant: Variant, sources: Sequence[Path], name: str, defines: Sequence[str] = ()) -> Path:
    """A shared library for ctypes from kernel sources of a test."""
    return _build(variant, sources, f"{name}.so", ["-shared", *defines], {})


def build_program(variant: Variant, sources: Sequence[Path], name: str) -> Path:
    """A program of its own: what the sanitizers end with a report, a test can run in a process of its own."""
    return _build(variant, sources, name, [], {})


def load_module(variant: Variant = "plain") -> ModuleType:
    """Build and import the emulated extension module."""
    path = build_module(variant)
    # pybind11 hands out a module that it has made under the same full name before, whatever file it came from
    name = f"{variant}._cuda"
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def with_lines(message: str) -> str:
    """`message` of the race check with `library+0xaddress` replaced by the source lines, innermost first."""

    def lines(match: re.Match[str]) -> str:
        found = _output("addr2line", "-i", "-s", "-e", match[1], match[2]).splitlines()
        return " in ".join(line.partition(" ")[0] for line in found)

    return re.sub(r"(/\S+)\+(0x[0-9a-f]+)", lines, message)


def sanitizer_environment() -> dict[str, str]:
    """The environment in which a Python process can load a `sanitized` library."""
    libraries = [_output("g++", f"-print-file-name={name}") for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    # Python leaks on purpose; allocations of the interpreter must go through malloc to be watched
    return {**os.environ, "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}


def _build(
    variant: Variant, sources: Sequence[Path], name: str, link: list[str], own_flags: dict[str, list[str]]
) -> Path:
    engine = ["engine.cpp", "arithmetic.cpp", "runtime.cpp", *(["race.cpp"] if variant == "races" else [])]
    commands: list[list[str]] = []
    for source in [*(STAND_IN / part for part in engine), *sources]:
        flags = [*_COMMON, *(flag for flag in link if flag.startswith("-D"))]
        if source.parent == STAND_IN and source.name in engine:
            flags = [
                *_COMMON,
                *_ENGINE_FLAGS[variant],
                *(["-frounding-math"] if source.name == "arithmetic.cpp" else []),
            ]
        elif source.name in own_flags:
            flags += own_flags[source.name]
        else:
            flags += [*_KERNEL_FLAGS[variant], "-include", "simt/device.h"]
        commands.append(["g++", *flags, "-x", "c++", "-c", str(source)])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(_compile, commands))
    shared = ["-shared", "-Wl,-Bsymbolic"] if "-shared" in link else []
    sanitizers = _SANITIZERS if variant == "sanitized" else []
    return _make(["g++", *sanitizers, *map(str, objects), *shared, "-ldl"], name, objects)


def _compile(command: list[str]) -> Path:
    source = Path(command[-1])
    return _make(command, f"{source.stem}.o", sorted(_with_headers(source) | _with_headers(STAND_IN / "device.h")))


def _with_headers(source: Path) -> set[Path]:
    """`source` and every header of the project that it includes, directly or not."""
    found, waiting = {source}, [source]
    while waiting:
        file = waiting.pop()
        for name in re.findall(r'^#include "(.+)"', file.read_text(), re.MULTILINE):
            places = [folder / name for folder in (file.parent, CSRC, STAND_IN.parent)]
            header = next((place for place in places if place.exists()), None)
            if header is not None and header not in found:
                found.add(header)
                waiting.append(header)
    return found


def _make(command: list[str], name: str, inputs: Sequence[Path]) -> Path:
    """Run `command`, which makes one file from `inputs`, unless its result is in the cache."""
    digest = hashlib.sha256(f"{sys.version} {_output('g++', '-dumpfullversion')} {command}".encode())
    for file in inputs:
        digest.update(file.read_bytes())
    target = _cache_folder() / digest.hexdigest()[:20] / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f"{name}.{os.getpid()}")
    done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    os.replace(made, target)  # two test processes may build at once: each one's result is whole
    return target


@functools.cache
def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cache_folder() -> Path:
    named = os.environ.get("LLMREC_EMULATION_CACHE")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"llmrec-fast-emulation-{os.getuid()}"
