"""FAISS's exact indexes over this package's index: `import llmrec_fast.compat.faiss as faiss`.

Covered: `IndexFlat`, `IndexFlatIP`, `IndexFlatL2`, `IndexIDMap`, `IndexIDMap2`, the ID selectors, `knn`, `normalize_L2`,
`write_index`, `read_index`. Answers are FAISS's, ties included (see `IndexFlat`); distances are summed in float64 and rounded
once. Refused: NaN and infinite vectors, other metrics, other kinds of index.
"""

from llmrec_fast.compat.faiss.files import read_index, write_index
from llmrec_fast.compat.faiss.flat import IndexFlat, IndexFlatIP, IndexFlatL2
from llmrec_fast.compat.faiss.functions import knn, normalize_L2, omp_get_max_threads, omp_set_num_threads
from llmrec_fast.compat.faiss.id_map import IndexIDMap, IndexIDMap2
from llmrec_fast.compat.faiss.metrics import (
    METRIC_INNER_PRODUCT,
    METRIC_L1,
    METRIC_L2,
    FaissError,
    METRIC_Linf,
    METRIC_Lp,
)
from llmrec_fast.compat.faiss.selectors import (
    IDSelector,
    IDSelectorAll,
    IDSelectorAnd,
    IDSelectorArray,
    IDSelectorBatch,
    IDSelectorBitmap,
    IDSelectorNot,
    IDSelectorOr,
    IDSelectorRange,
    IDSelectorXOr,
    SearchParameters,
)

__all__ = [
    "METRIC_INNER_PRODUCT",
    "METRIC_L1",
    "METRIC_L2",
    "FaissError",
    "IDSelector",
    "IDSelectorAll",
    "IDSelectorAnd",
    "IDSelectorArray",
    "IDSelectorBatch",
    "IDSelectorBitmap",
    "IDSelectorNot",
    "IDSelectorOr",
    "IDSelectorRange",
    "IDSelectorXOr",
    "IndexFlat",
    "IndexFlatIP",
    "IndexFlatL2",
    "IndexIDMap",
    "IndexIDMap2",
    "METRIC_Linf",
    "METRIC_Lp",
    "SearchParameters",
    "knn",
    "normalize_L2",
    "omp_get_max_threads",
    "omp_set_num_threads",
    "read_index",
    "write_index",
]
