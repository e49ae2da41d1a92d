"""Ways to make one word out of several reads of it: what others do, and ours, for benchmarks/voting.py.

A rule takes a track's reads, (text, confidence, char confidences) in the order of its frames, and gives a word.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from clip4str.core.edit_distance import edit_distance
from clip4str.video.vote import TrackVote

Read = tuple[str, float, tuple[float, ...]]
Rule = Callable[[Sequence[Read]], str]


def best_shot(reads: Sequence[Read]) -> str:
    """The surest read."""
    return max(reads, key=lambda read: read[1])[0]


def words(reads: Sequence[Read]) -> str:
    """Confidence-weighted vote over whole words."""
    weights: dict[str, float] = defaultdict(float)
    for text, confidence, _ in reads:
        weights[text] += confidence
    return max(weights, key=lambda text: weights[text])


def mean_confidence(reads: Sequence[Read]) -> str:
    """The word whose reads are surest on average."""
    kept: dict[str, list[float]] = defaultdict(list)
    for text, confidence, _ in reads:
        kept[text].append(confidence)
    return max(kept, key=lambda text: sum(kept[text]) / len(kept[text]))


def words_or_characters(reads: Sequence[Read]) -> str:
    """Words; where no two reads agree, characters."""
    texts = [text for text, _, _ in reads]
    return words(reads) if len(set(texts)) < len(texts) else characters(reads)


def clusters(reads: Sequence[Read]) -> str:
    """Reads alike are put together, the surest of the largest cluster is told: as Frigate reads plates."""
    groups: list[list[Read]] = []
    for read in reads:
        for group in groups:
            most = max(len(read[0]), len(group[0][0]))
            if edit_distance(read[0], group[0][0], most) <= 0.25 * most:
                group.append(read)
                break
        else:
            groups.append([read])
    largest = max(groups, key=lambda group: (len(group), max(read[1] for read in group)))
    return best_shot(largest)


def characters(reads: Sequence[Read]) -> str:
    """Every place by itself, among the reads of the heaviest length."""
    lengths: dict[int, float] = defaultdict(float)
    for text, confidence, _ in reads:
        lengths[len(text)] += confidence
    length = max(lengths, key=lambda n: lengths[n])
    places: list[dict[str, float]] = [defaultdict(float) for _ in range(length)]
    for text, _, chars in reads:
        if len(text) == length:
            for place, character, weight in zip(places, text, chars):
                place[character] += weight
    return "".join(max(place, key=lambda c: place[c]) for place in places)


def log_confidence(reads: Sequence[Read]) -> str:
    """Product of what each frame says of each word: a word that a frame does not read gets what that leaves over."""
    candidates = {text for text, _, _ in reads}
    score = {
        word: sum(math.log(max(c if text == word else (1 - c) / 100, 1e-9)) for text, c, _ in reads)
        for word in candidates
    }
    return max(score, key=lambda word: score[word])


def ours(reads: Sequence[Read]) -> str:
    """clip4str.video.TrackVote."""
    return voted(reads).result.text


def voted(reads: Sequence[Read]) -> TrackVote:
    vote = TrackVote()
    for text, confidence, _ in reads:
        vote.add(text, confidence)
    return vote


def fair(rule: Rule) -> Rule:
    """The rule over reads that are not blank, upper and lower case alike: as TrackVote takes them."""

    def applied(reads: Sequence[Read]) -> str:
        kept = [(text.casefold(), confidence, chars) for text, confidence, chars in reads if text]
        return rule([read for read in kept if len(read[2]) == len(read[0])]) if kept else ""

    return applied


RULES: dict[str, Rule] = {
    "TrackVote: words, weighted with confidence squared": ours,
    "over words, weighted with confidence": fair(words),
    "over words; over characters where no two agree": fair(words_or_characters),
    "over characters, at the heaviest length": fair(characters),
    "clusters of similar reads": fair(clusters),
    "clusters, upper and lower case told apart (Frigate)": clusters,
    "surest word on average": fair(mean_confidence),
    "surest single read": fair(best_shot),
    "product of sequence posteriors": fair(log_confidence),
}
