"""Clean and split text. Language models need `clean_text` only; tokens and stop words are for word vectors."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np

from llmrec_fast.arrays import Int64Array, as_texts

# A tag, comment or doctype: "<" directly followed by a letter, "/" or "!", so that "a < b" and "<3" stay.
_TAG = re.compile(r"<(?:!--.*?--|[a-zA-Z/!][^<>]*)>", re.DOTALL)
_SCRIPT = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_SPACE = re.compile(r"\s+")
# Control characters (but white space), soft hyphens, zero-width spaces, marks of direction, byte order marks, lone
# surrogates. Not the joiners U+200C and U+200D, which emoji and some scripts are written with.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ud800-\udfff]"
)
# letters and digits, with apostrophes and hyphens inside a word
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")

_STOP_WORDS = """
    a about above after again against all am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here hers
    herself him himself his how i if in into is it its itself just me more most my myself no nor not now of off on
    once only or other our ours ourselves out over own same she should so some such than that the their theirs them
    themselves then there these they this those through to too under until up very was we were what when where which
    while who whom why will with would you your yours yourself yourselves
"""
ENGLISH_STOP_WORDS = frozenset(_STOP_WORDS.split())


def clean_text(text: str) -> str:
    """`text` without mark-up, in one normal form.

    HTML tags become spaces (scripts and styles go with their content), entities become characters, characters take their
    compatibility form (Unicode NFKC), control and other invisible characters go, except the joiners that emoji and some
    scripts need; runs of white space become one space.
    """
    plain = _TAG.sub(" ", _SCRIPT.sub(" ", text))
    plain = unicodedata.normalize("NFKC", html.unescape(plain))
    return _SPACE.sub(" ", _INVISIBLE.sub("", plain)).strip()


def deduplicate(texts: Sequence[str]) -> tuple[list[str], Int64Array]:
    """The distinct `texts` in order of appearance, and for each text which one it is: `distinct[inverse[n]] == texts[n]`."""
    codes: dict[str, int] = {}
    inverse = np.array([codes.setdefault(text, len(codes)) for text in as_texts(texts)], np.int64)
    return list(codes), inverse


def tokens(text: str, *, stop_words: Collection[str] = frozenset(), lower: bool = True) -> list[str]:
    """The words of `text`, in order: letters and digits of any script, apostrophes and hyphens inside a word.

    Parameters
    ----------
    stop_words : words to leave out, in lower case; `ENGLISH_STOP_WORDS` is one such set.
    lower : whether to return words in lower case.
    """
    words = _WORD.findall(text.lower() if lower else text)
    return [word for word in words if word.lower() not in stop_words]
