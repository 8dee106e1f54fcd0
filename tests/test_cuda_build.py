"""How setup.py decides whether and for which GPUs to build the CUDA extension. The build itself is part of CI (.ci/cuda)."""

from __future__ import annotations

from types import ModuleType

import pytest

from benchmarks.cuda_report import build_script

KNOWN = ["75", "80", "86", "89", "90", "100", "120"]
NVCC = "/usr/local/cuda/bin/nvcc"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    pytest.importorskip("setuptools")
    return build_script()


@pytest.mark.parametrize(
    ("environment", "nvcc", "present", "chosen"),
    [
        ({}, None, [], ()),
        ({}, NVCC, [], ()),  # no driver: nothing could run it
        ({}, None, ["90"], ()),
        ({}, NVCC, ["90", "80"], ("80", "90")),
        ({"LLMREC_CUDA": "auto", "LLMREC_CUDA_ARCHS": "86"}, NVCC, ["90"], ("86",)),
        ({"LLMREC_CUDA": "0"}, NVCC, ["90"], ()),
        ({"LLMREC_CUDA": "1"}, NVCC, [], tuple(KNOWN)),
        ({"LLMREC_CUDA": "1", "LLMREC_CUDA_ARCHS": "9.0, 80;75"}, NVCC, [], ("75", "80", "90")),
    ],
)
def test_what_is_built(build, environment, nvcc, present, chosen):
    asked = []
    assert build.choose_architectures(environment, nvcc, present, lambda nvcc: asked.append(nvcc) or KNOWN) == chosen
    assert asked == ([NVCC] if chosen else [])  # a compiler that is not needed is not run


def test_an_older_toolkit_builds_for_what_it_knows(build):
    assert build.choose_architectures({"LLMREC_CUDA": "1"}, NVCC, [], lambda _: KNOWN[:5]) == tuple(KNOWN[:5])


@pytest.mark.parametrize(
    ("environment", "nvcc", "message"),
    [
        ({"LLMREC_CUDA": "yes"}, NVCC, "LLMREC_CUDA must be auto, 1 or 0; got 'yes'"),
        ({"LLMREC_CUDA": "1"}, None, "needs nvcc"),
        ({"LLMREC_CUDA": "1", "LLMREC_CUDA_ARCHS": "80 35"}, NVCC, "does not know 35; it knows 75"),
    ],
)
def test_what_cannot_be_built_is_refused_and_says_what_to_do(build, environment, nvcc, message):
    with pytest.raises(build.BuildError, match=message):
        build.choose_architectures(environment, nvcc, [], lambda _: KNOWN)


def test_nvcc_is_found_in_the_named_toolkit_first(build, tmp_path):
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "nvcc"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert build.find_nvcc({"CUDA_HOME": str(tmp_path), "PATH": ""}) == str(tool)


def test_every_architecture_is_a_known_default(build):
    assert list(build.ARCHITECTURES) == KNOWN
