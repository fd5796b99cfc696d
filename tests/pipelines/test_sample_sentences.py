"""Sample sentences of a new voice: in every language that has some, the main language first."""

from model.corpus.sentences import shipped_list
from pipelines.full_run import SENTENCES, sentences


def test_a_voice_of_one_language_says_three_sentences_in_it():
    assert sentences({"anna": "en"}) == [("en", text, "") for text in SENTENCES["en"]]
    assert sentences({"karl": "de"}) == [("de", text, "") for text in shipped_list("de")[-3:]]


def test_other_languages_have_one_sentence_by_their_own_speaker_and_by_one_of_the_main_language():
    said = sentences({"karl": "de", "anna": "en"})
    german = shipped_list("de")[-3]
    assert said == [*(("en", text, "") for text in SENTENCES["en"]), ("de", german, ""), ("de", german, "anna")]


def test_a_language_without_sentences_has_no_samples():
    assert sentences({"piet": "nl"}) == []
    assert sentences({"piet": "nl", "anna": "en"}) == sentences({"anna": "en"})
