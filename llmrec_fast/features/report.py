"""What cleaning found in a table: how many rows were dropped, why, and a few of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    reason : what was wrong, such as "missing user".
    count : how many rows.
    examples : a few of them, in words.
    dropped : whether these rows were dropped; otherwise they were kept and are worth knowing of.
    """

    reason: str
    count: int
    examples: tuple[str, ...]
    dropped: bool = True


@dataclass(frozen=True)
class CleaningReport:
    """What went in, what was kept, and why the rest was not. `print` it.

    `read` is `kept` plus the counts of the findings that dropped rows; a row counts under the first thing wrong with it.
    """

    source: str
    read: int
    kept: int
    findings: tuple[Finding, ...] = ()

    @property
    def dropped(self) -> dict[str, int]:
        """Reason -> number of rows dropped for it."""
        return {finding.reason: finding.count for finding in self.findings if finding.dropped}

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.kept:,} of {self.read:,} rows kept"]
        for finding in self.findings:
            verb = "dropped" if finding.dropped else "kept"
            more = ", ..." if finding.count > len(finding.examples) else ""
            lines.append(f"  {finding.count:,} {verb}: {finding.reason} ({', '.join(finding.examples)}{more})")
        return "\n".join(lines)


class Sieve:
    """The rows of a table that are still in, while one check after another takes some out."""

    def __init__(self, source: str, rows: int, describe: Callable[[int], str]) -> None:
        """All `rows` are in; `describe(row)` words an example."""
        self.kept = np.ones(rows, bool)
        self._source = source
        self._describe = describe
        self._findings: list[Finding] = []

    def drop(self, bad: npt.NDArray[np.bool_], reason: str) -> None:
        """Take out the rows of the (rows,) mask `bad` that are still in, under `reason`."""
        self._note(bad & self.kept, reason, dropped=True)
        self.kept &= ~bad

    def note(self, odd: npt.NDArray[np.bool_], reason: str) -> None:
        """Keep the rows of the (rows,) mask `odd`, but report them."""
        self._note(odd & self.kept, reason, dropped=False)

    def report(self) -> CleaningReport:
        """What was found so far."""
        return CleaningReport(self._source, len(self.kept), int(self.kept.sum()), tuple(self._findings))

    def _note(self, rows: npt.NDArray[np.bool_], reason: str, *, dropped: bool) -> None:
        positions = np.flatnonzero(rows)
        if len(positions):
            examples = tuple(self._describe(int(row)) for row in positions[:_EXAMPLES])
            self._findings.append(Finding(reason, len(positions), examples, dropped))
