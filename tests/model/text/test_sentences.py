"""Texts are split at the ends of sentences in any script, lose no word, and no piece is too long."""

import pytest

from model.text.sentences import LONGEST_PIECE, join_sentences, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Good morning. How are you?", ["Good morning.", "How are you?"]),
        ('He said: "Stop!" Then he left.', ['He said: "Stop!"', "Then he left."]),
        ("Dr. Smith met J. Jones. They spoke.", ["Dr. Smith met J. Jones.", "They spoke."]),
        ("It costs 3.50 today... Really?", ["It costs 3.50 today...", "Really?"]),
        ("سلام. حال شما چطور است؟ خوبم.", ["سلام.", "حال شما چطور است؟", "خوبم."]),
        ("你好。你好吗？很好！", ["你好。", "你好吗？", "很好！"]),
        ("A title\n\nA paragraph without a mark", ["A title", "A paragraph without a mark"]),
        ("no mark at all", ["no mark at all"]),
        ("  \n ", []),
    ],
)
def test_sentences_end_at_their_marks(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("pause", [", and ", " and "])
def test_a_sentence_that_is_too_long_is_divided_between_words(pause):
    text = pause.join(f"word{number}" for number in range(200)) + "."
    pieces = split_sentences(text)
    assert " ".join(pieces).split() == text.split()
    assert all(len(piece) <= LONGEST_PIECE for piece in pieces)
    assert all(piece.endswith(",") for piece in pieces[:-1]) == ("," in pause)


def test_a_word_without_end_is_cut():
    assert "".join(split_sentences("x" * 1200)) == "x" * 1200


def test_sentences_are_joined_up_to_the_longest_piece():
    sentences = [f"This is sentence number {number}." for number in range(60)]
    pieces = list(join_sentences(sentences))
    assert " ".join(pieces) == " ".join(sentences)
    assert all(LONGEST_PIECE / 2 < len(piece) <= LONGEST_PIECE for piece in pieces[:-1])
