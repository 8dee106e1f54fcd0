"""What can happen to a fitted recommender, and the state that each makes of the one before.

These functions may be called by one writer at a time, on the newest state only. They append to what states share
(`Growing`) and copy what little else they change; every state that a reader holds stays as it is. What the model has
learned (collaborative vectors, weights, popularity) is left alone: that is for `fit`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.ids import check_id
from llmrec_fast.recommender.fitted import Fitted
from llmrec_fast.recommender.histories import History


@dataclass(frozen=True)
class Events:
    """Someone did something with items. The parts are of one length.

    Attributes
    ----------
    users, items : the caller's ids; users may be new.
    strengths : how much each counts, not negative.
    timestamps : in the unit of the fitted interactions; None for "now", which is the time of the user's latest interaction.
    """

    users: Sequence[Hashable]
    items: Sequence[Hashable]
    strengths: Sequence[float]
    timestamps: Sequence[int | None]


@dataclass(frozen=True)
class ItemsWritten:
    """Items that are new or described anew.

    Attributes
    ----------
    ids, titles : one an item.
    features : name -> (n, d_f) float32, centred; a feature that is not given stays what it was, or zero for a new item.
    """

    ids: Sequence[Hashable]
    titles: Sequence[str]
    features: Mapping[str, Float32Array]


@dataclass(frozen=True)
class ItemsRemoved:
    """Items that left the catalogue."""

    ids: Sequence[Hashable]


Change = Events | ItemsWritten | ItemsRemoved


def check(state: Fitted, change: Change, *, new: bool = False) -> None:
    """Raise `UnknownId` or `InvalidInput` if `change` cannot be applied to `state`; after that `apply` does not fail.

    new : whether items that are written must not be known yet.
    """
    if isinstance(change, Events):
        for item in change.items:
            state.item_ids.position(item)
        for user in change.users:
            check_id(user, "user")
    elif isinstance(change, ItemsWritten):
        known = [identifier for identifier in change.ids if new and identifier in state.item_ids]
        if known:
            raise InvalidInput(
                f"item {known[0]!r} comes twice: it is known already; use upsert_items to describe it anew"
            )
    else:
        state.item_ids.positions(change.ids)
        if len(set(change.ids)) == len(state.item_ids):
            raise InvalidInput("these are all the items there are: a recommender needs at least one")


def apply(state: Fitted, change: Change) -> Fitted:
    """The state after a change that `check` has let pass."""
    if isinstance(change, Events):
        return _record(state, change)
    if isinstance(change, ItemsWritten):
        return _write(state, change)
    return _remove(state, change)


def _record(state: Fitted, events: Events) -> Fitted:
    users, table = state.user_ids, state.growing.user_ids
    changed: dict[int, History] = {}
    for user, item, strength, timestamp in zip(
        events.users, events.items, events.strengths, events.timestamps, strict=True
    ):
        position = table.position(user) if user in table else table.append(user)
        history = changed.get(position) or state.histories.history(position)
        changed[position] = history.recorded(state.item_ids.position(item), strength, timestamp)
    if len(table) > len(users):
        users = table.view()
    return replace(state, user_ids=users, histories=state.histories.replaced(changed, len(users)))


def _write(state: Fitted, written: ItemsWritten) -> Fitted:
    growing = state.growing
    positions = np.array(
        [
            state.item_ids.position(identifier) if identifier in state.item_ids else growing.item_ids.append(identifier)
            for identifier in written.ids
        ],
        np.int64,
    )
    # new items come last, so that their rows follow those that are there
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    growing.titles.extend(written.titles[place] for place in order.tolist())
    space = state.space.written(positions, {name: values[order] for name, values in written.features.items()})
    growing.index.upsert(space.rows(positions), positions)
    return _with_space(replace(state, space=space))


def _remove(state: Fitted, removed: ItemsRemoved) -> Fitted:
    positions = np.unique(state.item_ids.positions(removed.ids))
    state.growing.index.remove(positions)
    return _with_space(replace(state, space=state.space.removed(positions)))


def _with_space(state: Fitted) -> Fitted:
    """`state` with everything else as its space has it."""
    live = state.space.live
    return replace(
        state,
        item_ids=state.growing.item_ids.view(live),
        histories=replace(state.histories, live=live),
        index=state.growing.index.snapshot(),
    )
