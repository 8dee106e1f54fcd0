"""How the compiler report reads what nvcc, ptxas and cuobjdump print. Compiling is left to the report itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.cuda_report import rooflines
from benchmarks.cuda_report.compiled import Kernel, count_ptx, count_sass, demangle, read_ptxas, sass_kernels, shorten

PTXAS = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstPf' for 'sm_75'
ptxas info    : Function properties for _Z5firstPf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 46 registers, used 1 barriers, 128 bytes smem, 420 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondPf' for 'sm_90'
ptxas info    : Function properties for _Z6secondPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers
"""

PTX = """
  ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];
  ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];
  ld.global.nc.L1::no_allocate.v2.u64 {%rd5, %rd6}, [%rd1];
  ld.relaxed.gpu.global.u32 %r5, [%rd2];
  ld.global.u16 %rs1, [%rd3];
  ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r9];
  dp4a.u32.s32 %r1, %r2, %r3, %r4;
  mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r1}, {%r2}, {%r3}, {%r1};
  cp.async.cg.shared.global [%r1], [%rd1], 16;
  st.local.u32 [%rd9], %r1;
"""

SASS = """
	Function : _Z5firstPf
        /*0010*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0020*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0030*/                   LDG.E.U16.CONSTANT R4, [R2.64] ;
        /*0040*/                   IDP.4A.U8.S8 R1, R2, R3, R4 ;
	Function : _Z6secondPf
        /*0010*/                   IMMA.16832.S8.S8 R4, R2.ROW, R3.COL, R4 ;
        /*0020*/                   STL [R1], R2 ;
"""


def test_ptxas_tells_registers_memory_and_spills_of_each_kernel():
    first, second = read_ptxas(PTXAS)
    assert (first.name, first.architecture, first.registers, first.static_shared) == ("_Z5firstPf", "75", 46, 128)
    assert (first.stack, first.spill_stores, first.spill_loads) == (8, 4, 12)
    assert (second.name, second.architecture, second.registers, second.spill_loads) == ("_Z6secondPf", "90", 20, 0)


def test_loads_from_global_memory_are_counted_by_width_in_ptx():
    kernel = Kernel("k", "90")
    count_ptx(kernel, PTX)
    assert dict(kernel.ptx_loads) == {16: 3, 4: 1, 2: 1}
    assert kernel.widest_load == 16
    assert dict(kernel.ptx_instructions) == {"dp4a": 1, "mma": 1, "cp.async": 1, "local": 1}
    assert kernel.integer_products == "DP4A IMMA"


def test_the_same_is_counted_in_sass():
    (name, first), (_, second) = sass_kernels(SASS)
    kernel, other = Kernel(name, "90"), Kernel("", "90")
    count_sass(kernel, first)
    count_sass(other, second)
    assert kernel.sass_loads == {16: 1, 4: 1, 2: 1}
    assert kernel.sass_instructions["dp4a"] == 1
    assert (other.sass_instructions["mma"], other.sass_instructions["local"]) == (1, 1)


@pytest.mark.parametrize(
    ("signature", "short"),
    [
        ("void llmrec::pool_segments<llmrec::Float32, 4, true>(llmrec::PoolWork)", "pool_segments<Float32, 4, true>"),
        ("llmrec::select_rows(llmrec::SearchState, double*, long*)", "select_rows"),
        ("void llmrec::scan<(llmrec::Scan)1, 8>(llmrec::Shape, int)", "scan<1, 8>"),
    ],
)
def test_kernels_are_named_as_people_write_them(signature, short):
    assert shorten(signature) == short


def test_names_that_are_not_mangled_stay():
    assert demangle(["plain_name"]) == {"plain_name": "plain_name"}


def test_the_limit_is_the_longer_of_moving_and_computing():
    device = rooflines.Device(
        "d", bandwidth=100.0, float32=1000.0, float64=10.0, imma=1.0, multiprocessors=1, clock=1.0
    )
    memory = rooflines.Work("k", "c", bytes=50, operations=100, unit="float32")
    computing = rooflines.Work("k", "c", bytes=50, operations=100, unit="float64")
    assert (memory.seconds(device), memory.limit(device)) == (0.5, "memory")
    assert (computing.seconds(device), computing.limit(device)) == (10.0, "float64")


def test_few_queries_read_at_most_half_a_byte_a_column_and_sixteen_bytes():
    for work in rooflines.works(first=160):
        if "Q=1" in work.case and "Q=1024" not in work.case:
            assert work.bytes <= 160 / 2 + 16


def test_compiles_as_the_build_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("setuptools")
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\n[ \"$1\" = --list-gpu-arch ] && printf 'compute_75\\ncompute_90\\n'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["cuda-report", "--architectures", "75,100", "--output", str(tmp_path)])
    assert f"{nvcc} does not know 100; it knows 75, 90" in capsys.readouterr().err
