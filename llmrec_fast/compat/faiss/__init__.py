"""FAISS's exact indexes over this package's index: `import llmrec_fast.compat.faiss as faiss`.

Covered: `IndexFlat`, `IndexFlatIP`, `IndexFlatL2`, `IndexIDMap`, `IndexIDMap2`, `index_factory` of those, the ID selectors,
`knn`, `normalize_L2`, `write_index`, `read_index`, `serialize_index`, pickling. Answers are FAISS's, ties included (see
`IndexFlat`); distances are summed in float64 and rounded once. Refused: NaN and infinite vectors, other metrics, other kinds
of index.
"""

from llmrec_fast.compat.faiss.files import (
    IO_FLAG_MMAP,
    IO_FLAG_READ_ONLY,
    clone_index,
    deserialize_index,
    read_index,
    serialize_index,
    write_index,
)
from llmrec_fast.compat.faiss.flat import IndexFlat, IndexFlatIP, IndexFlatL2
from llmrec_fast.compat.faiss.functions import (
    get_num_gpus,
    index_factory,
    knn,
    normalize_L2,
    omp_get_max_threads,
    omp_set_num_threads,
)
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
    PyCallbackIDSelector,
    SearchParameters,
)
from llmrec_fast.compat.faiss.vectors import rev_swig_ptr, swig_ptr, vector_to_array

# the FAISS whose interface this follows
__version__ = "1.15.1"

__all__ = [
    "IO_FLAG_MMAP",
    "IO_FLAG_READ_ONLY",
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
    "PyCallbackIDSelector",
    "SearchParameters",
    "clone_index",
    "deserialize_index",
    "get_num_gpus",
    "index_factory",
    "knn",
    "normalize_L2",
    "omp_get_max_threads",
    "omp_set_num_threads",
    "read_index",
    "rev_swig_ptr",
    "serialize_index",
    "swig_ptr",
    "vector_to_array",
    "write_index",
]
