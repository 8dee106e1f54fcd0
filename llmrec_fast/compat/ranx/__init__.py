"""ranx's evaluation over plain arrays: `from llmrec_fast.compat.ranx import Qrels, Run, evaluate, compare`.

Covered: the metrics by ranx's names, the three significance tests, JSON, TREC and Parquet files. Not there: fusion,
normalisation, plots, LaTeX, LZ4, ranxhub and ir_datasets. Refused: NaN scores, judgments that are
not integers, metrics with a cut-off that they would ignore (`r-precision@5`).
"""

from llmrec_fast.compat.ranx.evaluation import compare, evaluate
from llmrec_fast.compat.ranx.report import Report
from llmrec_fast.compat.ranx.score_table import Qrels, Run

__all__ = ["Qrels", "Report", "Run", "compare", "evaluate"]
