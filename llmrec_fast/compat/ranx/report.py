"""`Report`: the result of `compare`, for reading and for other programs. LaTeX is not written here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llmrec_fast.compat.ranx.metrics import parse
from llmrec_fast.errors import MissingDependency

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SUPERSCRIPTS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖ۹ʳˢᵗᵘᵛʷˣʸᶻ"


_TEST_LABELS = {
    "student": "paired Student's t-test",
    "fisher": "Fisher's randomization test",
    "tukey": "Tukey's HSD test",
}


class Comparisons(dict[frozenset[str], dict[str, dict[str, Any]]]):
    """By pair of runs, in either order, then by metric: {"p_value", "significant"}."""

    def __getitem__(self, pair: Iterable[str]) -> dict[str, dict[str, Any]]:
        return super().__getitem__(frozenset(pair))

    def __setitem__(self, pair: Iterable[str], value: dict[str, dict[str, Any]]) -> None:
        super().__setitem__(frozenset(pair), value)


class Report:
    """What `compare` found.

    Attributes
    ----------
    model_names, metrics : what was compared by what.
    results : mean by run and metric.
    comparisons : p-value and significance by pair of runs and metric.
    win_tie_loss : queries on which the first of an ordered pair of runs was better, equal, worse, by metric.
    stat_test, max_p : the test and its greatest significant p-value.
    """

    def __init__(
        self,
        model_names: Sequence[str],
        results: dict[str, dict[str, float]],
        comparisons: Comparisons,
        metrics: Sequence[str],
        max_p: float,
        win_tie_loss: dict[tuple[str, str], dict[str, dict[str, int]]],
        rounding_digits: int = 3,
        show_percentages: bool = False,
        stat_test: str = "student",
    ) -> None:
        self.model_names = list(model_names)
        self.results = results
        self.comparisons = comparisons
        self.metrics = list(metrics)
        self.max_p = max_p
        self.win_tie_loss = win_tie_loss
        self.rounding_digits = rounding_digits
        self.show_percentages = show_percentages
        self.stat_test = stat_test

    @staticmethod
    def get_stat_test_label(stat_test: str) -> str:
        """What a test is called in words."""
        return _TEST_LABELS[stat_test]

    def to_table(self) -> str:
        """A text table; a superscript names each run that this one is significantly better than."""
        rows = [["#", "Model", *(parse(metric).label for metric in self.metrics)]]
        for place, name in enumerate(self.model_names):
            cells = [self._cell(name, metric) for metric in self.metrics]
            rows.append([_LETTERS[place % len(_LETTERS)], name, *cells])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rows.insert(1, ["-" * width for width in widths])
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts: stat_test, metrics, model_names, and for each run scores, comparisons, win_tie_loss."""
        document: dict[str, Any] = {
            "stat_test": self.stat_test,
            "metrics": self.metrics,
            "model_names": self.model_names,
        }
        for name in self.model_names:
            others = [other for other in self.model_names if other != name]
            document[name] = {
                "scores": self.results[name],
                "comparisons": {
                    other: {metric: self.comparisons[name, other][metric]["p_value"] for metric in self.metrics}
                    for other in others
                },
                "win_tie_loss": {other: self.win_tie_loss[name, other] for other in others},
            }
        return document

    def to_dataframe(self) -> Any:
        """A pandas DataFrame: model_names and a column a metric."""
        try:
            import pandas
        except ImportError as error:
            raise MissingDependency("data frames need pandas: pip install pandas") from error
        rows = [{"model_names": name, **self.results[name]} for name in self.model_names]
        return pandas.DataFrame(rows)

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=4), encoding="utf-8")

    def print_results(self) -> None:
        """Print `results` as JSON."""
        print(json.dumps(self.results, indent=4))

    def __repr__(self) -> str:
        return self.to_table()

    def _cell(self, name: str, metric: str) -> str:
        score = self.results[name][metric]
        digits = self.rounding_digits - 2 if self.show_percentages else self.rounding_digits
        better_than = [
            _SUPERSCRIPTS[place % len(_SUPERSCRIPTS)]
            for place, other in enumerate(self.model_names)
            if other != name
            and self.comparisons[name, other][metric]["significant"]
            and score > self.results[other][metric]
        ]
        return f"{100 * score if self.show_percentages else score:.{max(0, digits)}f}{''.join(better_than)}"
