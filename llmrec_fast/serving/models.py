"""What requests and answers look like: strict, bounded pydantic models, from which the OpenAPI document is made."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

MOST_IDS = 1000
MOST_QUERIES = 64
MOST_TEXT = 8192

Id = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Annotated[StrictStr, Field(min_length=1, max_length=256)]
Text = Annotated[StrictStr, Field(min_length=1, max_length=MOST_TEXT)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e30, le=1e30)]
Count = Annotated[StrictInt, Field(ge=1, le=1000, description="how many items")]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]


class Strict(BaseModel):
    """Unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Filters(Strict):
    """What every search takes."""

    k: Count = 10
    exclude: Annotated[list[Id], Field(max_length=MOST_IDS)] = []
    allow: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)] | None = None


class RecommendRequest(Filters):
    """For known users, or for someone who likes `items`, the oldest first: one of the two."""

    users: Annotated[list[Id], Field(min_length=1, max_length=MOST_QUERIES)] | None = None
    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)] | None = None
    diversity: Share = 0.0
    filter_seen: Annotated[bool, Field(strict=True)] = True

    @model_validator(mode="after")
    def _one_of_two(self) -> RecommendRequest:
        if (self.users is None) == (self.items is None):
            raise ValueError("give either users or items")
        return self


class RecommendQuery(Strict):
    """For one user. Ids in an address have no type: the string is looked up first, then the integer that it spells."""

    user: Annotated[str, Field(min_length=1, max_length=256)]
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    filter_seen: bool = True


class SimilarRequest(Filters):
    """Items like each of `items`."""

    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_QUERIES)]


class SearchRequest(Filters):
    """Items whose texts are nearest to each of `texts`."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_QUERIES)]
    diversity: Share = 0.0
    popularity: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1e6)] = 0.0


class EncodeRequest(Strict):
    """Texts to vectors."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_QUERIES)]


class Event(Strict):
    """Someone did something with a known item; the user may be new."""

    user: Id
    item: Id
    value: Number | None = None
    timestamp: Annotated[StrictInt, Field(gt=-(2**63), lt=2**63)] | None = None


class EventsRequest(Strict):
    """All of them are recorded, or none."""

    events: Annotated[list[Event], Field(min_length=1, max_length=MOST_IDS)]


class Item(Strict):
    """An item to add or to describe anew."""

    id: Id
    text: Text
    title: Annotated[StrictStr, Field(max_length=MOST_TEXT)] | None = None


class ItemsRequest(Strict):
    """Items, and vectors by feature (one row an item); without vectors for "text" the texts are encoded."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_IDS)]
    vectors: Annotated[dict[str, list[list[Number]]], Field(max_length=16)] | None = None


class RemoveRequest(Strict):
    """Ids of items to take out."""

    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)]


class ExplainRequest(Strict):
    """Why this item for this user."""

    user: Id
    item: Id


class Scored(BaseModel):
    """One item of an answer."""

    item: str | int
    title: str
    score: float


class Recommended(BaseModel):
    """A list of items, best first, for each query in the order asked."""

    answers: list[list[Scored]]


class Encoded(BaseModel):
    """A vector for each text."""

    vectors: list[list[float]]


class Written(BaseModel):
    """How many were written; they are in the log, as durable as the fsync policy says."""

    written: int


class Contribution(BaseModel):
    """What one item of the history adds."""

    item: str | int
    title: str
    total: float
    by_feature: dict[str, float]


class Explained(BaseModel):
    """A score taken apart without remainder."""

    user: str | int
    item: str | int
    score: float
    features: dict[str, float]
    history: list[Contribution]


class Problem(BaseModel):
    """Every error: a sentence, and for JSON that does not fit where and why."""

    detail: str
    errors: list[str] = []
