"""Named spans: read from tags (IO, BIO, IOBES, BILOU, BMES), compared whole; and answers, as SQuAD compares them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data2vec.evaluation.metrics import ratio

Span = tuple[str, int, int]

_BEGIN, _END = frozenset("BSUW"), frozenset("ESLUW")
_TAG = re.compile(r"[BIESLUMW]-.+", re.DOTALL)


@dataclass(frozen=True)
class SpanScore:
    """Spans found.

    Attributes:
        precision: share of the answered spans that are right.
        recall: share of the true spans that were answered.
        f1: their harmonic mean; 0 where nothing is right.
        support: true spans.
    """

    precision: float
    recall: float
    f1: float
    support: int


def name_spans(tags: Iterable[str]) -> bool:
    """Whether tags are those of spans: each but ``O`` as ``B-LOC``, and not ``-LRB-`` as a part of speech may be."""
    named = {*tags} - {"O"}
    return bool(named) and all(_TAG.fullmatch(tag) for tag in named)


def spans(tags: Sequence[str]) -> list[Span]:
    """(type, first, last + 1) of each span, by the rules of CoNLL's ``conlleval``.

    A span begins with ``B-``, or with any tag of another type than the one before (so that IO tags work); it ends with
    ``E-`` or ``L-``, before ``O``, and where another begins. ``S-``, ``U-`` and ``W-`` are spans of one word.
    """
    found: list[Span] = []
    kind, start, ended = "", 0, True
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-") if tag != "O" else ("O", "", "")
        if kind and (tag == "O" or prefix in _BEGIN or name != kind or ended):
            found.append((kind, start, place))
            kind = ""
        if tag != "O" and not kind:
            kind, start = name, place
        ended = prefix in _END
    return found


def span_f1(truth: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> dict[str, SpanScore]:
    """Score of each type of span over all sentences, and of all types together under ``""``."""
    assert [len(tags) for tags in truth] == [len(tags) for tags in answers]
    true, answered, hits = Counter[str](), Counter[str](), Counter[str]()
    for expected, given in zip(truth, answers, strict=True):
        wanted, got = set(spans(expected)), set(spans(given))
        for counter, group in ((true, wanted), (answered, got), (hits, wanted & got)):
            counter.update(kind for kind, _, _ in group)
            counter[""] += len(group)
    return {kind: _score(true[kind], answered[kind], hits[kind]) for kind in sorted({*true, *answered})}


def _score(true: int, answered: int, hits: int) -> SpanScore:
    f1 = 2 * hits / (true + answered) if true + answered else 0.0
    return SpanScore(ratio(hits, answered), ratio(hits, true), f1, true)


_ARTICLES = re.compile(r"\b(a|an|the)\b")


def plain_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra space (SQuAD's ``normalize_answer``)."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 where the answer is one of those accepted, plainly written; none accepted means that there is no answer."""
    return float(plain_answer(answer) in {plain_answer(text) for text in accepted or [""]})


def overlap_f1(answer: str, accepted: Sequence[str]) -> float:
    """F1 of words in common with the accepted answer that has most."""
    given = plain_answer(answer).split()
    best = 0.0
    for text in accepted or [""]:
        wanted = plain_answer(text).split()
        common = sum((Counter(given) & Counter(wanted)).values())
        score = 2 * common / (len(given) + len(wanted)) if given or wanted else 1.0
        best = max(best, score)
    return best
