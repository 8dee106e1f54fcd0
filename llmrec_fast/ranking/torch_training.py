"""What trainings with torch have in common: finding torch, repeatable randomness, a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmrec_fast.errors import MissingDependency


def import_torch(what: str) -> Any:
    """The module; `MissingDependency` says that training `what` needs it."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(f"training {what} needs torch: pip install 'llmrec-fast[train]'") from error
    return torch


@contextmanager
def seeded(torch: Any, seed: int, threads: int | None) -> Iterator[None]:
    """Torch's random state and threads are the caller's: both come back."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def progress_bar(steps: range, what: str, show_progress: bool | None) -> Any:
    """Iterates `steps`, as a bar on standard error; None: where that is a terminal."""
    from tqdm import tqdm

    return tqdm(steps, what, unit="epoch", disable=None if show_progress is None else not show_progress)
