"""The texts of the suite `encode`: real ones to time, made from what every machine has, and awkward ones to compare on."""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import numpy as np

# importing these opens windows or web pages, or prints
_LEFT_OUT = {"antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo"}
_SHORTEST, _LONGEST = 16, 400

_SENTENCES = """
The movie about space and time is a classic of science fiction.
Der schnelle braune Fuchs springt über den faulen Hund, während es regnet.
Les cinémas de la ville étaient fermés à cause de la neige.
El niño comió una manzana roja y después leyó tres libros.
Il gatto dorme sulla sedia vicino alla finestra aperta.
Быстрая коричневая лиса перепрыгивает через ленивую собаку.
Η γρήγορη αλεπού πηδά πάνω από το τεμπέλικο σκυλί.
快速的棕色狐狸跳过了懒狗，然后消失在森林里。
素早い茶色の狐がのろまな犬を飛び越える。
빠른 갈색 여우가 게으른 개를 뛰어넘는다.
الثعلب البني السريع يقفز فوق الكلب الكسول.
तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।
Szybki brązowy lis przeskakuje nad leniwym psem.
Hızlı kahverengi tilki tembel köpeğin üstünden atlar.
Great film!!! 😀🎬🍿 10/10 👍🏽 would watch again ❤️‍🔥
C++ & Python 3.11: std::vector<int> -> list[int]; see https://example.org/a?b=c#d
"""  # noqa: RUF001 - other scripts are what they are for


def awkward(count: int, seed: int = 0) -> list[str]:
    """`count` texts of 0 to 600 words in many scripts, with emoji, odd spaces, control characters and empty strings."""
    rng = np.random.default_rng(seed)
    sentences = _SENTENCES.strip().split("\n")
    words = [word for sentence in sentences for word in sentence.split()]
    texts = ["", " ", "\n\t", "a", ".", "😀", "\u200b\u00ad", "x" * 300, "\x00bell\x07", "e\u0301 é ﬁ Ⅳ", *sentences]
    while len(texts) < count:
        length = int(rng.choice([rng.integers(0, 8), rng.integers(0, 60), rng.integers(60, 601)], p=[0.3, 0.5, 0.2]))
        source = words if rng.random() < 0.5 else str(rng.choice(sentences)).split()
        texts.append(" ".join(rng.choice(source, length)))
    return texts[:count]


def descriptions(count: int, seed: int = 0) -> list[str]:
    """`count` different short descriptions: the first paragraphs of the standard library's documentation strings."""
    return _all_descriptions(seed)[:count]


def passages(lengths: Sequence[int], count_tokens: Callable[[Sequence[str]], list[int]], seed: int = 0) -> list[str]:
    """A text of about so many tokens (special ones included, and not more) for each of `lengths`, cut from descriptions.

    `count_tokens` gives the tokens of texts, special ones included; those of words add up in models whose tokenizer
    splits at spaces.
    """
    stream = [word for text in _all_descriptions(seed) for word in text.split()]
    words = list(dict.fromkeys(stream))
    special = count_tokens([""])[0]
    tokens = dict(zip(words, (count - special for count in count_tokens(words)), strict=True))
    shortest = min(tokens.values())
    endless, texts = itertools.cycle(stream), []
    for length in lengths:
        left, chosen = length - special, []
        while left >= shortest:
            word = next(endless)
            if tokens[word] <= left:
                chosen.append(word)
                left -= tokens[word]
        texts.append(" ".join(chosen))
    return texts


def _all_descriptions(seed: int) -> list[str]:
    found = {
        re.sub(r"\s+", " ", text.strip().split("\n\n")[0]) for module in _modules() for text in _documentation(module)
    }
    texts = sorted(text for text in found if _SHORTEST <= len(text) <= _LONGEST)
    return [texts[place] for place in np.random.default_rng(seed).permutation(len(texts))]


def _modules() -> Iterator[ModuleType]:
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        if name.startswith("_"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                yield importlib.import_module(name)
        except ImportError:  # of another system, or left out when this Python was built
            continue


def _documentation(module: ModuleType) -> Iterator[str]:
    for thing in list(vars(module).values()):
        members = list(vars(thing).values()) if inspect.isclass(thing) else []
        for candidate in (thing, *members):
            text = getattr(candidate, "__doc__", None)
            if isinstance(text, str) and text.strip():
                yield text
