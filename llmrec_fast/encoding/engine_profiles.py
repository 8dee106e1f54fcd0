"""The shapes of a TensorRT engine: batches are rounded up to a grid, and each part of the grid has an optimisation profile.

TensorRT picks its kernels for one shape of a profile and promises only to run the others, so a single short query must not
share a profile with a batch of a thousand, nor ten tokens with five hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmrec_fast.errors import InvalidInput

Shape = tuple[int, int]  # (batch, time) of padded texts, (texts, tokens) of packed ones
TIME_STEP = 16
FEW_TEXTS = 8
_LIKELY_TOKENS = 32


@dataclass(frozen=True)
class Profile:
    """The least, the likeliest and the largest shape of a part of the grid."""

    least: Shape
    likeliest: Shape
    largest: Shape

    def holds(self, shape: Shape) -> bool:
        """Whether the shape lies between the least and the largest."""
        return all(low <= size <= high for low, size, high in zip(self.least, shape, self.largest, strict=True))


def round_up(batch: int, time: int, longest: int) -> Shape:
    """The shape of the grid that holds (batch, time): a power of two texts, a multiple of 16 tokens or the longest text."""
    return 1 << (batch - 1).bit_length(), min(-(-time // TIME_STEP) * TIME_STEP, max(longest, time))


def plan_profiles(longest: int, tokens_per_batch: int) -> tuple[Profile, ...]:
    """Profiles for texts of up to `longest` tokens: lengths doubling from 16, each for few texts and for many.

    `tokens_per_batch` bounds a batch before its texts are rounded up to a power of two.
    """
    profiles = []
    low, high = 1, TIME_STEP
    while low <= longest:
        _, shortest = round_up(1, low, longest)
        time = min(high, longest)
        most, _ = round_up(max(tokens_per_batch // (-(-low // TIME_STEP) * TIME_STEP), 1), low, longest)
        profiles.append(Profile((1, shortest), (1, time), (min(most, FEW_TEXTS), time)))
        if most > FEW_TEXTS:
            profiles.append(Profile((2 * FEW_TEXTS, shortest), (most, time), (most, time)))
        low, high = high + 1, 2 * high
    return tuple(profiles)


def plan_packed_profiles(longest: int, tokens_per_batch: int) -> tuple[Profile, ...]:
    """Profiles of packed batches, whose shapes are (texts, tokens): tokens growing eightfold from 128, in any number of texts.

    The likeliest texts have 32 tokens. A batch may be one text of `longest` tokens, and few texts are rounded up.
    """
    profiles = []
    most = max(tokens_per_batch, longest)
    most += most // 8 + 2 * FEW_TEXTS
    low, high = 1, 8 * TIME_STEP
    while low <= most:
        tokens = min(high, most)
        profiles.append(Profile((1, low), (max(tokens // _LIKELY_TOKENS, 1), tokens), (tokens, tokens)))
        low, high = high + 1, 8 * high
    return tuple(profiles)


def choose_profile(profiles: Sequence[Profile], shape: Shape) -> int:
    """The position of the profile that holds the shape; raises `InvalidInput` where none does."""
    for place, profile in enumerate(profiles):
        if profile.holds(shape):
            return place
    raise InvalidInput(f"the engine holds no batch of {shape[0]} texts and {shape[1]} tokens")
