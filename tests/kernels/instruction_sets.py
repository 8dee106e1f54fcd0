"""The instruction sets that tests of kernels go through: all that this processor has, the best first."""

from __future__ import annotations

from llmrec_fast.kernels.cpu.intrinsics import AVX2, PORTABLE, VNNI, InstructionSet, instruction_set

_ORDER = (VNNI, AVX2, PORTABLE)
SETS: list[InstructionSet] = [isa for isa in _ORDER if isa <= instruction_set()]
