"""A small byte-pair vocabulary in the format of open_clip's SimpleTokenizer, learnt from the training sentences.

Method: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", 2015, arXiv 1508.07909.
Ties go to the pair that sorts first, so the same sentences give the same merges everywhere (and the same bytes where
zlib is the same).

``encoders/bundled/tiny.bpe.gz`` was learnt so (:func:`training_sentences`) when fewer things were drawn than now. It
stays as it is, because the weights know its numbers; learning again gives other merges for what is drawn.
"""

from __future__ import annotations

import gzip
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

__all__ = ["SIZE", "learn_merges", "training_sentences", "write_merges"]

SIZE = 3072
_BASE = 512 + 2  # bytes, bytes that end a word, and the marks of start and end
_DRAWN = 6000  # pictures, for what is said of them
# what clips are said to do; as often as a common word, for there are no clips yet
_MOTION = (
    "first a thing appears, then another disappears, nothing moves, it moves from left to right, from right to left, "
    "up and down, enters, leaves, grows, shrinks, changes colour, the camera pans left and right, zooms in and out, "
    "fades, cuts to, before, after, stays still, while, turns, falls, rises, comes in, goes away, crosses, shakes"
)
_MOTION_TIMES = 60

Pair = tuple[str, str]


def training_sentences(packs: Path) -> list[str]:
    """Everything that is said while training: sentences and labels of the packs, of drawn pictures, words of motion.

    Raises:
        TrainingError: where the folder lacks the packs.
        PackError: for a pack that cannot be read.
    """
    import numpy as np

    from scripts.training.drawn import drawn_pictures
    from scripts.training.photographs import all_names, all_sentences
    from scripts.training.wording import label_sentences

    texts = all_sentences(packs, "train")
    for names in all_names(packs):
        texts += label_sentences(names)
    texts += drawn_pictures(_DRAWN, 32, np.random.default_rng(0))[1]
    return texts + [_MOTION] * _MOTION_TIMES


def learn_merges(sentences: Iterable[str], vocabulary: int) -> list[Pair]:
    """The merges that make a vocabulary of that size from the sentences, first learnt first; fewer if those are few.

    Raises:
        ValueError: for a vocabulary without room for a merge.
    """
    import regex
    from open_clip.tokenizer import bytes_to_unicode

    if vocabulary <= _BASE:
        raise ValueError(f"a vocabulary must be larger than {_BASE}, got {vocabulary}")
    letters = bytes_to_unicode()
    pattern = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    counts = Counter(word for sentence in sentences for word in pattern.findall(sentence.lower()))
    words = []
    for word, count in sorted(counts.items()):
        symbols = [letters[byte] for byte in word.encode()]
        words.append((count, [*symbols[:-1], symbols[-1] + "</w>"]))
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, (count, symbols) in enumerate(words):
        for pair in pairwise(symbols):
            pairs[pair] += count
            where[pair].add(i)
    merges: list[Pair] = []
    while len(merges) < vocabulary - _BASE:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        for i in where.pop(best):
            count, symbols = words[i]
            for pair in pairwise(symbols):
                pairs[pair] -= count
            merged = _merged(symbols, best)
            words[i] = (count, merged)
            for pair in pairwise(merged):
                pairs[pair] += count
                where[pair].add(i)
        del pairs[best]
    return merges


def write_merges(merges: list[Pair], path: Path) -> None:
    """Write merges as SimpleTokenizer reads them: a line that it skips, then one a line, and no line end at the end."""
    text = "\n".join(["#version: longreel tiny", *(" ".join(pair) for pair in merges)])
    partial = path.with_suffix(".partial")
    partial.write_bytes(gzip.compress(text.encode(), mtime=0))
    os.replace(partial, path)


def _merged(symbols: list[str], pair: Pair) -> list[str]:
    result: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            result.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            result.append(symbols[i])
            i += 1
    return result
