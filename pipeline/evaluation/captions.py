"""Scores of captions against what people wrote: BLEU-1 to 4, ROUGE-L and CIDEr, counted by pycocoevalcap.

That library is the usual evaluation code of MS-COCO captions (X. Chen et al., "Microsoft COCO Captions: Data Collection
and Evaluation Server", 2015, arXiv 1504.00325): its BLEU takes the closest reference length, its "CIDEr" is CIDEr-D
with n up to 4 and sigma 6 (Vedantam, Zitnick and Parikh, 2014, arXiv 1411.5726), its ROUGE-L has beta 1.2.

One departure: it splits texts with a Java program (PTBTokenizer of Stanford CoreNLP 3.4.1) and we do not, so that a
figure does not depend on whether Java is installed. :func:`caption_words` is a plain rule in its place;
docs/evaluation.md says how often the two differ and what that changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ExtraMissing, InputError
from pipeline.evaluation.packs import ImageTextPack
from pipeline.evaluation.retrieval import limited, same_size

if TYPE_CHECKING:
    from encoders.captioning import Captioner

__all__ = ["CaptionScores", "CaptionedPicture", "caption_scores", "caption_words", "evaluate_captions"]

_PICTURES_AT_ONCE = 32

_TOKEN = re.compile(
    r"""
    (?:[^\W\d_]\.){2,}              # d.c., r.v.
    | \w+?(?=n't\b)                 # is|n't
    | n't\b
    | can(?=not\b)                  # can|not
    | '(?:s|re|ve|ll|d|m)\b         # man|'s, they|'re
    | \w+(?:[-./:@&](?=\w)\w+|,(?=\d)\d+|'(?!(?:s|re|ve|ll|d|m|t)\b)\w+)*
    | [^\s\w]
    """,
    re.VERBOSE,
)
# What the evaluation code leaves out after splitting, with brackets, which its list means to name.
_DROPPED = frozenset("'\"`‘’“”.?!,:;-–—…()[]{}")


@dataclass(frozen=True)
class CaptionScores:
    """All in percent, as papers print them: a CIDEr of 100 is 1.0 of the library, and it may be above 100.

    Attributes:
        bleu: BLEU-1 to BLEU-4 over all captions together.
        per_caption: CIDEr of each caption, in their order.
    """

    captions: int
    bleu: tuple[float, float, float, float]
    rouge_l: float
    cider: float
    per_caption: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON, by the names of papers, to four decimals."""
        figures = {f"BLEU-{n}": value for n, value in enumerate(self.bleu, 1)}
        figures |= {"ROUGE-L": self.rouge_l, "CIDEr": self.cider}
        return {"captions": self.captions, **{name: round(value, 4) for name, value in figures.items()}}


@dataclass(frozen=True)
class CaptionedPicture:
    """One picture of a pack, what a captioner says of it, and what people wrote; ``cider`` in percent."""

    index: int
    key: str
    caption: str
    references: tuple[str, ...]
    confidence: float | None
    cider: float


def evaluate_captions(
    captioner: Captioner,
    pack: ImageTextPack,
    split: str,
    *,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[CaptionScores, list[CaptionedPicture]]:
    """Caption the pictures of a split, as stills, and score the words against the pack's.

    ``limit``: only the first so many pictures, for a quick look; CIDEr is then another measure, as it weighs words by
    how many of the pictures have them.

    Raises:
        ExtraMissing: before any picture is captioned.
        InputError: a limit below 1, a labelled pack (its captions are made from labels, not written), or a picture
            without a caption.
        PackError, and what the captioner raises.
    """
    from encoders.captioning import caption_pictures

    _scorers()
    if pack.labelled:
        raise InputError(
            f"{pack.path}: its captions are made from labels, so there is nothing to compare a caption with"
        )
    chosen = limited(pack.split(split), limit)
    said: list[tuple[str, float | None]] = [("", None)] * len(chosen)
    done = 0
    for rows, pictures in same_size(pack, chosen, _PICTURES_AT_ONCE):
        for row, caption in zip(rows, caption_pictures(captioner, pictures), strict=True):
            said[row] = caption.text, caption.confidence
        done += len(rows)
        if progress is not None:
            progress("captions", done, len(chosen))
    references = [pack.rows[i]["captions"] for i in chosen]
    scores = caption_scores([text for text, _ in said], references)
    return scores, [
        CaptionedPicture(i, pack.rows[i]["key"], text, tuple(written), confidence, cider)
        for i, (text, confidence), written, cider in zip(chosen, said, references, scores.per_caption, strict=True)
    ]


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Score one caption for each picture against all that people wrote for it.

    CIDEr weighs words by how few pictures they are written for, so it means something for many pictures only, and is 0
    for a single one. A caption without words scores 0.

    Raises:
        ExtraMissing: pycocoevalcap is not installed.
        InputError: lists of different lengths, nothing to score, a picture whose references hold no word.
    """
    if isinstance(candidates, str) or not all(isinstance(text, str) for text in candidates):
        raise InputError("candidates must be a list of texts, one for each picture")
    if len(candidates) != len(references):
        raise InputError(f"{len(candidates)} captions for {len(references)} pictures with references")
    if not candidates:
        raise InputError("there is no caption to score")
    written: dict[int, list[str]] = {}
    for i, texts in enumerate(references):
        if isinstance(texts, str):
            raise InputError(f"the references of picture {i} must be a list of texts, got the text {texts[:40]!r}")
        written[i] = [words for words in (" ".join(caption_words(text)) for text in texts) if words]
        if not written[i]:
            raise InputError(f"picture {i} has no reference with a word: {list(texts)!r}")
    given = {i: [" ".join(caption_words(text))] for i, text in enumerate(candidates)}
    bleu, rouge, cider = _scorers()
    of_bleu, _ = bleu.compute_score(written, given, verbose=0)
    of_rouge, _ = rouge.compute_score(written, given)
    of_cider, each = cider.compute_score(written, given)
    return CaptionScores(
        captions=len(given),
        bleu=tuple(100.0 * float(value) for value in of_bleu),  # type: ignore[arg-type]
        rouge_l=100.0 * float(of_rouge),
        cider=100.0 * float(of_cider),
        per_caption=tuple(100.0 * float(value) for value in each),
    )


def caption_words(text: str) -> list[str]:
    """The words of a caption as they are compared: lower case, possessives and contractions apart, no punctuation.

    ``"The man's dog isn't black-and-white."`` gives ``the man 's dog is n't black-and-white``. Hyphenated words stay
    whole; signs that stand for a word (``&``, ``#``, ``%``, ``$``) stay.
    """
    return [token for token in _TOKEN.findall(text.lower().replace("’", "'")) if token not in _DROPPED]


def _scorers() -> tuple[Any, Any, Any]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ExtraMissing(
            "scoring captions needs pycocoevalcap, which the extra 'evaluate' brings: pip install 'longreel[evaluate]'"
        ) from error
    return Bleu(4), Rouge(), Cider()
