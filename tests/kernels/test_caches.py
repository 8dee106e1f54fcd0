"""The size of the last cache is read where the system tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrec_fast.kernels.caches import last_cache_bytes


def describe(folder: Path, caches: list[tuple[str, str]]) -> Path:
    for number, (level, size) in enumerate(caches):
        cache = folder / f"index{number}"
        cache.mkdir(parents=True)
        (cache / "level").write_text(f"{level}\n")
        (cache / "size").write_text(f"{size}\n")
    return folder


def test_the_highest_level_counts(tmp_path: Path) -> None:
    assert last_cache_bytes(describe(tmp_path, [("1", "32K"), ("3", "36608K"), ("2", "512K")])) == 36608 << 10


@pytest.mark.parametrize("caches", [[], [("3", "")], [("?", "1M")], [("3", "many")]])
def test_what_cannot_be_read_leaves_the_usual_size(tmp_path: Path, caches: list[tuple[str, str]]) -> None:
    assert last_cache_bytes(describe(tmp_path / "cache", caches)) == 16 << 20


def test_megabytes(tmp_path: Path) -> None:
    assert last_cache_bytes(describe(tmp_path, [("2", "1M")])) == 1 << 20
