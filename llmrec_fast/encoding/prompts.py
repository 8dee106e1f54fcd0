"""The texts that a model wants before what it encodes, such as `query: `, by name (config_sentence_transformers.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmrec_fast.errors import InvalidInput

# the names that `encode_query` and `encode_document` look for, first found first taken, as in sentence-transformers
QUERY_NAMES = ("query",)
DOCUMENT_NAMES = ("document", "passage", "corpus")


@dataclass(frozen=True)
class Prompts:
    """Prompts by name, and the name of the one for texts that come without any (None: nothing goes before them).

    Raises `InvalidInput` where the default is not among the prompts.
    """

    texts: Mapping[str, str]
    default: str | None = None

    def __post_init__(self) -> None:
        if self.default is not None and self.default not in self.texts:
            raise InvalidInput(f"default_prompt_name {self.default!r} is not among the prompts {sorted(self.texts)}")

    def updated(self, more: Mapping[str, str] | None, default: str | None) -> Prompts:
        """These prompts with `more` over them, and `default` in the place of theirs unless it is None."""
        return Prompts({**self.texts, **(more or {})}, self.default if default is None else default)

    def choose(self, name: str | None, text: str | None) -> str:
        """What goes before each text: `text`, else the prompt called `name`, else the default's. Raises `InvalidInput`."""
        if text is not None:
            if name is not None:
                raise InvalidInput(f"give prompt or prompt_name, not both; got {text!r} and {name!r}")
            if not isinstance(text, str):
                raise InvalidInput(f"prompt must be a string; got {type(text).__name__}")
            return text
        name = self.default if name is None else name
        if name is None:
            return ""
        if name not in self.texts:
            raise InvalidInput(f"prompt_name {name!r} is not among the prompts {sorted(self.texts)}")
        return self.texts[name]

    def first_of(self, names: Sequence[str]) -> str | None:
        """The first of `names` that there is a prompt for."""
        return next((name for name in names if name in self.texts), None)
