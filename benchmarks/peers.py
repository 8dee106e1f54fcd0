"""Import the peers a suite compares with. A peer that is not installed is named in the report, never dropped silently."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from types import ModuleType

# module -> distribution that pip installs
DISTRIBUTION = {
    "cupy": "cupy-cuda12x",
    "cuvs.neighbors.brute_force": "cuvs-cu12",
    "faiss": "faiss-cpu",
    "fastembed": "fastembed",
    "hnswlib": "chroma-hnswlib",
    "pytrec_eval": "pytrec-eval-terrier",
    "ranx": "ranx",
    "rectools.metrics": "rectools",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "svs": "scalable-vs",
    "torch": "torch",
    "usearch": "usearch",
}


def import_peers(names: Iterable[str]) -> tuple[Mapping[str, ModuleType], dict[str, str]]:
    """The modules among `names` that can be imported, and for each other one why it takes no part."""
    modules: dict[str, ModuleType] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            modules[name] = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # not installed, or without a library that it loads
            missing[name] = f"cannot be imported ({error}); pip install {DISTRIBUTION.get(name, name)}"
    return modules, missing
