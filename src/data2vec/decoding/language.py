"""What knows about language in a beam search: n-gram files (extra ``lm``) and words to listen for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data2vec.decoding.ctc import Scorer
from data2vec.errors import UserError, require

_LN10 = math.log(10.0)


class _Word(NamedTuple):
    """State of `NGram`: the model's state after the last whole word, and the letters since."""

    words: Any
    letters: str


class NGram:
    """An n-gram language model over words, as kenlm reads it (ARPA or binary).

    A word is scored when it ends, by ``weight * ln p + bonus``; letters before that cost nothing. It is looked up as it
    is, in lower and in upper case.

    Args:
        model: a loaded ``kenlm.Model`` (or anything with its `BeginSentenceWrite` and `BaseScore`).
        symbols: (V,) what each class is written as.
        delimiter: the class that ends a word.
        state: makes an empty state (``kenlm.State``).
        weight: of the model against the acoustics (alpha).
        bonus: a word (beta), against the model's wish for few words.
        unknown: natural log-score of a word that the model does not know, in place of its own.
    """

    def __init__(
        self,
        model: Any,
        symbols: Sequence[str],
        delimiter: int,
        state: Any,
        *,
        weight: float = 0.5,
        bonus: float = 1.5,
        unknown: float = -10.0,
    ) -> None:
        self.model, self.symbols, self.delimiter, self.state = model, symbols, delimiter, state
        self.weight, self.bonus, self.unknown = weight, bonus, unknown

    def start(self) -> _Word:
        """Beginning of a sentence."""
        words = self.state()
        self.model.BeginSentenceWrite(words)
        return _Word(words, "")

    def extend(self, state: _Word, symbol: int) -> tuple[_Word, float]:
        """Collect a letter, or score the word that ends."""
        if symbol != self.delimiter:
            return _Word(state.words, state.letters + self.symbols[symbol]), 0.0
        if not state.letters:
            return state, 0.0
        words, score = self._word(state.words, state.letters)
        return _Word(words, ""), score

    def finish(self, state: _Word) -> float:
        """Score the last word and the end of the sentence."""
        words, score = (state.words, 0.0) if not state.letters else self._word(state.words, state.letters)
        return score + self.weight * _LN10 * float(self.model.BaseScore(words, "</s>", self.state()))

    def _word(self, before: Any, word: str) -> tuple[Any, float]:
        word = next((case for case in (word, word.lower(), word.upper()) if case in self.model), word)
        after = self.state()
        score = _LN10 * float(self.model.BaseScore(before, word, after))
        return after, self.weight * (score if word in self.model else self.unknown) + self.bonus


def load_ngram(path: str | Path, symbols: Sequence[str], delimiter: int, **options: Any) -> NGram:
    """An n-gram file as a scorer; needs the extra ``lm``.

    Args:
        path: an ARPA or kenlm binary file.
        symbols: see `NGram`.
        delimiter: see `NGram`.
        options: see `NGram`.

    Raises:
        UserError: no such file, or not a language model.
    """
    kenlm = require("kenlm", extra="lm")
    if not Path(path).is_file():
        raise UserError(f"{path}: no such language model file")
    try:
        model = kenlm.Model(str(path))
    except OSError as error:
        raise UserError(f"{path}: not a language model that kenlm reads ({error})") from error
    return NGram(model, symbols, delimiter, kenlm.State, **options)


class Hotwords:
    """Words and phrases to listen for.

    A text that spells the beginning of one is favoured in proportion to what it has of it, so that it survives in the
    beam; the favour is taken back when it turns out to be another word, but for the hot words in it. No word counts for
    two that overlap.

    The state is the end of what was recognised, from a word's start on, as far as it spells the beginning of a hot
    word; None inside a word that begins none.

    Args:
        words: words or phrases, in the recogniser's letters; or each with its own weight.
        symbols: (V,) what each class is written as.
        delimiter: the class that ends a word.
        weight: natural log-score of a whole hot word.

    Raises:
        UserError: a word that cannot be written with `symbols`, or none at all.
    """

    def __init__(
        self, words: Iterable[str] | Mapping[str, float], symbols: Sequence[str], delimiter: int, weight: float = 6.0
    ) -> None:
        self.symbols, self.delimiter = symbols, delimiter
        given = words if isinstance(words, Mapping) else dict.fromkeys(words, weight)
        self.words = {" ".join(word.split()): value for word, value in given.items()}
        letters = {symbol for index, symbol in enumerate(symbols) if index != delimiter} | {" "}
        self.beginnings: dict[str, float] = {}
        for word, value in self.words.items():
            if not word or (strange := set(word) - letters):
                raise UserError(f"hot word {word!r}: {''.join(sorted(strange)) if word else 'it'} cannot be recognised")
            for stop in range(1, len(word) + 1):
                beginning, share = word[:stop], value * stop / len(word)
                whole = self._whole(beginning.split(" ")[:-1])
                self.beginnings[beginning] = max(share, whole, self.beginnings.get(beginning, 0.0))

    def start(self) -> str:
        """Nothing recognised yet."""
        return ""

    def extend(self, state: str | None, symbol: int) -> tuple[str | None, float]:
        """Follow the longest beginning of a hot word that the text ends in."""
        ends = symbol == self.delimiter
        if state is None:
            return ("" if ends else None), 0.0
        if ends and (not state or state.endswith(" ")):
            return state, 0.0
        longer, earned = state + (" " if ends else self.symbols[symbol]), self.beginnings.get(state, 0.0)
        if longer in self.beginnings:
            return longer, self.beginnings[longer] - earned
        starts = (place + 1 for place, letter in enumerate(longer) if letter == " ")
        start = next((place for place in starts if not longer[place:] or longer[place:] in self.beginnings), None)
        if start is None:
            return None, self._whole(longer.split(" ")[:-1]) - earned
        rest = longer[start:]
        return rest, self._whole(longer[:start].split()) + self.beginnings.get(rest, 0.0) - earned

    def finish(self, state: str | None) -> float:
        """Whole words keep their favour, beginnings lose it."""
        return self._whole(state.split()) - self.beginnings[state] if state else 0.0

    def _whole(self, words: Sequence[str]) -> float:
        """The most that hot words next to each other among some words are worth together."""
        most = [0.0]
        for stop in range(1, len(words) + 1):
            ends = (most[start] + self.words.get(" ".join(words[start:stop]), 0.0) for start in range(stop))
            most.append(max(most[-1], *ends))
        return most[-1]


class Together:
    """Several scorers at once, their scores added."""

    def __init__(self, *scorers: Scorer) -> None:
        self.scorers = scorers

    def start(self) -> tuple[Any, ...]:
        """All states."""
        return tuple(scorer.start() for scorer in self.scorers)

    def extend(self, state: tuple[Any, ...], symbol: int) -> tuple[tuple[Any, ...], float]:
        """All states further, and the sum of the scores."""
        steps = [scorer.extend(own, symbol) for scorer, own in zip(self.scorers, state, strict=True)]
        return tuple(own for own, _ in steps), sum(score for _, score in steps)

    def finish(self, state: tuple[Any, ...]) -> float:
        """The sum."""
        return sum(scorer.finish(own) for scorer, own in zip(self.scorers, state, strict=True))
