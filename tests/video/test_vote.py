"""Many reads, one word."""

from __future__ import annotations

import pytest

from clip4str.core.errors import UsageError
from clip4str.video.vote import Lexicon, TrackVote


def voted(*reads, **how):
    vote = TrackVote(**how)
    for read in reads:
        vote.add(*read)
    return vote.result


def test_the_word_with_the_most_confidence_behind_it_wins():
    assert voted(("SALE", 0.7), ("SALE", 0.7), ("SAFE", 0.9)).text == "SALE"
    assert voted(("SALE", 0.5), ("SALE", 0.5), ("SAFE", 0.9)).text == "SAFE"


def test_upper_and_lower_case_vote_together_and_the_commoner_spelling_is_told():
    result = voted(("Sale", 0.6), ("SALE", 0.5), ("Sale", 0.4), ("SAFE", 0.8))
    assert result.text == "Sale" and result.weight == pytest.approx(0.6**2 + 0.5**2 + 0.4**2)


def test_blank_and_unsure_reads_do_not_vote_but_are_counted():
    result = voted(("", 0.99), ("", 0.99), ("x", 0.01), ("word", 0.4))
    assert (result.text, result.reads) == ("word", 4)
    assert voted(("", 0.99)).text == "" and voted(("", 0.99)).confidence == 0


def test_a_read_without_a_number_for_confidence_does_not_vote():
    assert voted(("word", float("nan"))).text == ""


def test_a_pattern_lets_only_whole_matches_vote():
    assert voted(("AB123C", 0.9), ("AB123", 0.4), pattern=r"[A-Z]{2}\d{3}").text == "AB123"
    assert voted(("no", 0.9), pattern=r"\d+").text == ""


def test_a_lexicon_takes_the_nearest_word_unless_it_is_far_or_there_are_two():
    lexicon = Lexicon(["station", "street", "Strasse"])
    assert voted(("statlon", 0.6), lexicon=lexicon).text == "station"
    assert voted(("strasse", 0.6), lexicon=lexicon).text == "Strasse"
    assert voted(("market", 0.9), lexicon=lexicon).text == ""
    assert voted(("cat", 0.9), lexicon=Lexicon(["bat", "hat"])).text == ""


def test_confidence_grows_with_agreement_and_falls_with_doubt():
    one = voted(("SALE", 0.8)).confidence
    two = voted(("SALE", 0.8), ("SALE", 0.8)).confidence
    doubted = voted(("SALE", 0.8), ("SALE", 0.8), ("SAFE", 0.8)).confidence
    assert 0 < one < two < 1 and doubted < two


def test_what_is_no_pattern_or_no_lexicon_is_said_in_one_line():
    with pytest.raises(UsageError, match="is no regular expression"):
        TrackVote(pattern="[")
    with pytest.raises(UsageError, match="has no words"):
        Lexicon(["", " "])
