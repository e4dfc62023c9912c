"""Language in the beam: a real n-gram file, hot words, and both."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data2vec.decoding.ctc import beam_search, greedy, log_softmax
from data2vec.decoding.language import Hotwords, Together, load_ngram
from data2vec.errors import UserError

SYMBOLS = ["", "|", *"abcdehiklmnorstwy"]
DELIMITER = 1
ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>\t0
-99\t<s>\t-0.3
-0.8\t</s>\t0
-0.7\ttwo\t-0.3
-0.7\tto\t-0.3

\\2-grams:
-0.05\t<s> two
-2.0\t<s> to
-0.1\ttwo </s>

\\end\\
"""


def ids(text: str) -> list[int]:
    return [DELIMITER if c == " " else SYMBOLS.index(c) for c in text]


def spoken(text: str, alternative: str | None = None, doubt: float = 0.4) -> np.ndarray:
    """Scores that say `text`, and `alternative` (of the same length) a little less."""
    frames = []
    for place, symbol in enumerate(ids(text)):
        frame = np.full(len(SYMBOLS), -8.0)
        frame[symbol] = 0.0
        if alternative and (other := ids(alternative)[place]) != symbol:
            frame[other] = -doubt
        blank = np.full(len(SYMBOLS), -8.0)
        blank[0] = 0.0
        frames += [frame, blank]
    return log_softmax(np.array(frames))


def written(symbols: tuple[int, ...]) -> str:
    return "".join(" " if s == DELIMITER else SYMBOLS[s] for s in symbols)


def favour(hot: Hotwords, text: str) -> float:
    """What a whole text earns."""
    state, total = hot.start(), 0.0
    for symbol in ids(text):
        state, gain = hot.extend(state, symbol)
        total += gain
    return total + hot.finish(state)


@given(st.lists(st.sampled_from(["ma", "mark", "mary", "ann", "an", "a"]), max_size=6), st.sampled_from(["mark", "an"]))
def test_a_text_earns_one_favour_for_each_hot_word_in_it(words: list[str], hot: str) -> None:
    earned = favour(Hotwords([hot], SYMBOLS, DELIMITER, weight=2.0), " ".join(words))
    assert earned == pytest.approx(2.0 * words.count(hot))


@pytest.mark.parametrize(
    ("text", "earned"),
    [("new york", 5.0), ("new", 2.0), ("new yo", 2.0), ("york", 0.0), ("new new york", 7.0), ("the new york", 5.0)],
)
def test_a_phrase_and_a_word_within_it(text: str, earned: float) -> None:
    symbols = [*SYMBOLS, "k", "y"]
    assert favour(Hotwords({"new york": 5.0, "new": 2.0}, symbols, DELIMITER), text) == pytest.approx(earned)


@pytest.mark.parametrize(
    ("text", "earned"),
    [
        ("york", 6.0),
        ("ten york", 6.0),
        ("new york", 6.0),
        ("new york city", 6.0),
        ("new york ten", 6.0),
        ("new york york", 12.0),
        ("new york new york city", 12.0),
        ("new city", 0.0),
    ],
)
def test_a_hot_word_at_the_beginning_of_a_longer_one(text: str, earned: float) -> None:
    symbols = [*SYMBOLS, "k", "y"]
    assert favour(Hotwords(["new york city", "york"], symbols, DELIMITER), text) == pytest.approx(earned)


def test_a_hot_word_wins_over_what_sounds_a_little_better() -> None:
    scores = spoken("two", "twi")
    assert written(beam_search(scores)[0].symbols) == "two"
    assert written(beam_search(scores, scorer=Hotwords(["twi"], SYMBOLS, DELIMITER))[0].symbols) == "twi"


def test_an_ngram_chooses_between_words_that_sound_alike(tmp_path: Path) -> None:
    pytest.importorskip("kenlm")
    file = tmp_path / "words.arpa"
    file.write_text(ARPA)
    lm = load_ngram(file, SYMBOLS, DELIMITER, weight=1.0, bonus=0.0)
    scores = spoken("teo", "two")  # acoustics prefer a word that is none
    assert written(greedy(scores).symbols) == "teo"
    best = beam_search(scores, scorer=lm)[0]
    assert written(best.symbols) == "two"
    without = next(h for h in beam_search(scores, best=50) if written(h.symbols) == "two")
    assert best.score - without.score == pytest.approx(np.log(10) * (-0.05 - 0.1))  # <s> two, two </s>
    upper = load_ngram(file, [symbol.upper() for symbol in SYMBOLS], DELIMITER, weight=1.0, bonus=0.0)
    assert beam_search(scores, scorer=upper)[0] == best  # the file's words are in lower case
    both = Together(lm, Hotwords(["teo"], SYMBOLS, DELIMITER, weight=30.0))
    assert written(beam_search(scores, scorer=both)[0].symbols) == "teo"


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="é cannot be recognised"):
        Hotwords(["café"], SYMBOLS, DELIMITER)
    pytest.importorskip("kenlm")
    with pytest.raises(UserError, match="no such language model"):
        load_ngram(tmp_path / "none.arpa", SYMBOLS, DELIMITER)
    (tmp_path / "bad.arpa").write_text("hello")
    with pytest.raises(UserError, match="not a language model"):
        load_ngram(tmp_path / "bad.arpa", SYMBOLS, DELIMITER)
