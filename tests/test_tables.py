from llmrec_fast.tables import format_table


def test_numbers_stand_to_the_right_and_words_to_the_left():
    text = format_table(["row", "ndcg@10", "n"], [["text", 0.5, 7], ["collaborative", None, 12]])
    assert text.splitlines() == [
        "row            ndcg@10   n",
        "-------------  -------  --",
        "text            0.5000   7",
        "collaborative        -  12",
    ]


def test_a_table_without_rows_is_its_header():
    assert format_table(["a", "b"], []).splitlines() == ["a  b", "-  -"]
