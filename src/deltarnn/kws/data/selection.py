"""Which clips of a corpus enter the data description: speakers kept apart, duplicates out, unknown words balanced."""

from collections import Counter

import numpy as np

from deltarnn.kws.data.corpus import GROUPS, UNKNOWN, SourceClip, by_word

Groups = dict[str, list[SourceClip]]


def separate_speakers(clips: Groups) -> tuple[Groups, Counter[str]]:
    """Validation without test speakers, training without either; and how many clips that costs, by reason."""
    kept: Groups = {group: [] for group in GROUPS}
    taken: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    for group in ("test", "validation", "train"):
        for clip in clips[group]:
            owner = taken.get(clip.speaker) if clip.speaker else None
            if owner:
                dropped[f"of {owner} speakers in {group}"] += 1
            else:
                kept[group].append(clip)
        taken.update({clip.speaker: group for clip in kept[group] if clip.speaker})
    return kept, dropped


def drop_same_samples(clips: Groups, digests: dict[SourceClip, bytes]) -> tuple[Groups, Counter[str]]:
    """Each recording once, and none of the test group in validation or training, none of validation in training.

    The test group itself stays whole, so that results compare with others' on it.
    """
    kept: Groups = {"test": clips["test"]}
    seen = {digests[clip] for clip in clips["test"]}
    dropped: Counter[str] = Counter()
    for group in ("validation", "train"):
        kept[group] = []
        for clip in clips[group]:
            if digests[clip] in seen:
                dropped[f"the same samples as another clip, in {group}"] += 1
            else:
                seen.add(digests[clip])
                kept[group].append(clip)
    return kept, dropped


def balanced(clips: list[SourceClip], count: int, rng: np.random.Generator) -> list[SourceClip]:
    """`count` clips (or all, if fewer), as evenly over their words as those allow; which ones is drawn from `rng`."""
    words = by_word(clips)
    shuffled = {word: [words[word][i] for i in rng.permutation(len(words[word]))] for word in sorted(words)}
    chosen: list[SourceClip] = []
    depth = 0
    while len(chosen) < min(count, len(clips)):
        layer = [shuffled[word][depth] for word in shuffled if depth < len(shuffled[word])]
        order = rng.permutation(len(layer))[: count - len(chosen)]
        chosen.extend(layer[i] for i in order)
        depth += 1
    return sorted(chosen, key=lambda clip: clip.path)


def class_size(clips: list[SourceClip], keywords: tuple[str, ...]) -> int:
    """Mean number of clips of a keyword."""
    counts = Counter(clip.word for clip in clips)
    return round(sum(counts[word] for word in keywords) / len(keywords))


def label_of(word: str, keywords: tuple[str, ...]) -> int:
    """_silence_ 0, _unknown_ and every word that is no keyword 1, keywords from 2 in their order."""
    if word == "_silence_":
        return 0
    return keywords.index(word) + 2 if word in keywords and word != UNKNOWN else 1
