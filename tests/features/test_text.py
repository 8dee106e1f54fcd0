import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import ENGLISH_STOP_WORDS, clean_text, deduplicate, tokens


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  two\t words\r\n", "two words"),
        ("ﬁlm ｆｕｌｌ", "film full"),
        ("<p>Fish &amp; <b>chips</b></p>", "Fish & chips"),
        ("one<br/>two", "one two"),
        ("keep<script>var a = '<b>';</script>this", "keep this"),
        ("<!-- hidden > -->shown", "shown"),
        ("a < b, I <3 it, 5 > 4", "a < b, I <3 it, 5 > 4"),
        ("&lt;b&gt; is a tag", "<b> is a tag"),
        ("non\u00a0breaking&nbsp;space", "non breaking space"),
        ("zero\u200bwidth soft\u00adhyphen \ufeffmark", "zerowidth softhyphen mark"),
        ("bell\x07 and \x00 nul", "bell and nul"),
        ("family 👨\u200d👩\u200d👧", "family 👨\u200d👩\u200d👧"),
        ("", ""),
    ],
)
def test_clean_text(raw, clean):
    assert clean_text(raw) == clean


@given(st.text())
def test_clean_text_leaves_no_control_characters_and_single_spaces(text):
    clean = clean_text(text)
    assert "  " not in clean
    assert clean == clean.strip()
    assert not any(character < " " for character in clean)


@given(st.lists(st.text(max_size=3)))
def test_deduplicate_can_be_undone(texts):
    distinct, inverse = deduplicate(texts)
    assert [distinct[code] for code in inverse] == texts
    assert len(set(distinct)) == len(distinct)


def test_deduplicate_refuses_a_single_string():
    with pytest.raises(InvalidInput, match="sequence of strings"):
        deduplicate("abc")


def test_tokens_are_words_of_any_script():
    assert tokens("Don't stop: E-Mail, 2001 und Übermut!") == ["don't", "stop", "e-mail", "2001", "und", "übermut"]
    assert tokens("война и мир") == ["война", "и", "мир"]


def test_tokens_keep_case_if_asked_and_leave_stop_words_out_either_way():
    assert tokens("The Matrix and the Oracle", stop_words=ENGLISH_STOP_WORDS, lower=False) == ["Matrix", "Oracle"]
    assert tokens("The Matrix", stop_words={"matrix"}) == ["the"]
