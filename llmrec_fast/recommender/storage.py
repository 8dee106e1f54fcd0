"""Save and load a fitted recommender: one folder, replaced atomically and checksummed.

The index is not stored: it is built anew from the same rows, which gives the same answers.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.features import Centring
from llmrec_fast.folders import read_folder, write_folder
from llmrec_fast.ids import IdTable, tagged_id
from llmrec_fast.ranking.adapter import Adapter, AdapterSettings
from llmrec_fast.recommender.fitted import Fitted, Growing
from llmrec_fast.recommender.fitting import ADAPTER, ADAPTER_HISTORIES, Settings, join_space
from llmrec_fast.recommender.histories import UserHistories
from llmrec_fast.recommender.journal import LogPosition, generations_in
from llmrec_fast.recommender.reranking import Reranker, RerankerSettings
from llmrec_fast.retrieval import Index

_KIND = "recommender"


def save(
    path: Path, state: Fitted, settings: Settings, encoder: str | None, follows: LogPosition | None = None
) -> None:
    """Write everything to `path`; `encoder` is the name or folder of the model, None for one that cannot be named.

    `follows` is where the log begins that goes on from this state; without it a folder with a log is refused. Items are
    written in the order of the index, without removed ones, so that a loaded recommender breaks ties alike.
    """
    if follows is None and path.is_dir() and generations_in(path):
        raise InvalidInput(
            f"{path} holds a log of events, which saving would cut off: open it with Recommender.open and compact it, "
            "or save elsewhere"
        )
    order = state.index.ids
    dense = state.space.row_of is None
    features = list(state.space.features)
    header = {
        "kind": _KIND,
        "settings": asdict(settings) | {"weights": None if settings.weights is None else dict(settings.weights)},
        "encoder": encoder,
        "items": [tagged_id(identifier, "item") for identifier in state.item_ids.at(order).tolist()],
        "users": state.user_ids.to_json(),
        "titles": [state.title(position) for position in order.tolist()],
        "features": features,
        "centred": list(state.centrings),
        "weights": dict(state.weights),
        "decay": state.decay,
        "log": asdict(follows or LogPosition()),
        "adapter": None if state.adapter is None else state.adapter.header(),
        "reranker": None if state.reranker is None else state.reranker.header(),
    }
    histories = state.histories.merged(order)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "prior": state.space.prior if dense else state.space.prior[state.space.at(order)],
        "history_indptr": histories.indptr,
        "history_items": histories.items,
        "history_strengths": histories.strengths,
        "history_timestamps": histories.timestamps,
    }
    # features are numbered: their names are the caller's and may not do as file names
    arrays |= {
        f"feature_{place}": state.space.features[name] if dense else state.space.vectors(name, order)
        for place, name in enumerate(features)
    }
    if state.adapter is not None:
        arrays |= {f"adapter_{name}": np.frombuffer(model, np.uint8) for name, model in state.adapter.models().items()}
    if state.reranker is not None:
        arrays |= state.reranker.arrays(order)
    arrays |= {f"mean_{place}": centring.mean for place, centring in enumerate(state.centrings.values())}
    write_folder(path, header, arrays)


def load(path: Path, threads: int | None) -> tuple[Fitted, Settings, str | None, LogPosition]:
    """What `save` wrote; raises `CorruptFile`."""
    header, arrays = read_folder(path)
    if header.get("kind") != _KIND:
        raise CorruptFile(f"{path} holds an index, not a recommender: read it with Index.load")
    features = {name: arrays[f"feature_{place}"] for place, name in enumerate(header["features"])}
    adapter = None
    if header["adapter"] is not None:
        models = {
            name.removeprefix("adapter_"): array.tobytes()
            for name, array in arrays.items()
            if name.startswith("adapter_")
        }
        adapter = Adapter.restored(
            header["adapter"], models, features[ADAPTER], features[ADAPTER_HISTORIES], threads=threads
        )
    reranker = None
    if header["reranker"] is not None:
        reranker = Reranker.restored(header["reranker"], arrays, threads)
    space = join_space(features, arrays["prior"], adapter)
    item_ids = IdTable.from_json(header["items"], kind="item")
    user_ids = IdTable.from_json(header["users"], kind="user")
    index = Index(space.dimension, "dot", threads=threads)
    index.add(space.rows(), np.arange(len(item_ids)))
    histories = UserHistories(
        len(user_ids),
        arrays["history_indptr"],
        arrays["history_items"],
        arrays["history_strengths"],
        arrays["history_timestamps"],
        header["decay"],
    )
    state = Fitted.start(
        Growing(item_ids, user_ids, header["titles"], index),
        space,
        {name: Centring(arrays[f"mean_{place}"]) for place, name in enumerate(header["centred"])},
        header["weights"],
        header["decay"],
        histories,
        adapter,
        reranker,
    )
    settings = Settings(**header["settings"])
    shape = header["settings"]["adapter"]
    settings = replace(
        settings,
        threads=threads,
        adapter=None if shape is None else AdapterSettings(**shape),
        reranker=RerankerSettings.restored(header["settings"]["reranker"]),
    )
    return state, settings, header["encoder"], LogPosition(**header["log"])
