"""Text with words in time, from a hypothesis of symbols; and as subtitles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from data2vec.decoding.ctc import Hypothesis


@dataclass(frozen=True)
class Piece:
    """A word or a character.

    Attributes:
        text: what it is written as.
        start: seconds.
        end: seconds.
        confidence: mean probability of its symbols, 0..1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        text: words, separated by spaces.
        words: in order.
        characters: in order; a space is one.
        confidence: mean over the characters; 1 for no text.
    """

    text: str
    words: tuple[Piece, ...] = ()
    characters: tuple[Piece, ...] = ()
    confidence: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values, times to the millisecond."""
        words = [
            {"word": w.text, "start": round(w.start, 3), "end": round(w.end, 3), "confidence": round(w.confidence, 4)}
            for w in self.words
        ]
        return {"text": self.text, "confidence": round(self.confidence, 4), "words": words}


def write_out(
    found: Hypothesis, symbols: Sequence[str], delimiter: int | None, seconds_per_frame: float, offset: float = 0.0
) -> Transcript:
    """A hypothesis as text.

    Args:
        found: symbols and their frames.
        symbols: (V,) what each class is written as; the empty string is left out.
        delimiter: class that separates words; None: every symbol is a word (phones).
        seconds_per_frame: of the model: samples a frame / sampling rate.
        offset: seconds to add to all times.
    """
    characters = []
    for symbol, (start, stop), confidence in zip(found.symbols, found.frames, found.confidences, strict=True):
        text = " " if symbol == delimiter else symbols[symbol]
        if text:
            times = offset + start * seconds_per_frame, offset + stop * seconds_per_frame
            characters.append(Piece(text, *times, confidence))
    words = characters if delimiter is None else _words(characters)
    confidence = fmean(c.confidence for c in characters) if characters else 1.0
    return Transcript(" ".join(word.text for word in words), tuple(words), tuple(characters), confidence)


def _words(characters: Iterable[Piece]) -> list[Piece]:
    words: list[Piece] = []
    held: list[Piece] = []
    for character in [*characters, Piece(" ", 0.0, 0.0, 1.0)]:
        if character.text != " ":
            held.append(character)
        elif held:
            confidence = fmean(c.confidence for c in held)
            words.append(Piece("".join(c.text for c in held), held[0].start, held[-1].end, confidence))
            held = []
    return words


def subtitles(transcript: Transcript, kind: str = "srt", *, width: int = 42, pause: float = 0.8) -> str:
    """Subtitles: lines of up to `width` characters, broken where somebody pauses.

    Args:
        transcript: with words in time.
        kind: ``srt`` or ``vtt``.
        width: characters a line; a longer word stands alone.
        pause: seconds of silence that begin a new line.
    """
    assert kind in ("srt", "vtt")
    lines: list[list[Piece]] = []
    for word in transcript.words:
        fits = bool(lines) and sum(len(w.text) + 1 for w in lines[-1]) + len(word.text) <= width
        if fits and word.start - lines[-1][-1].end < pause:
            lines[-1].append(word)
        else:
            lines.append([word])
    cues = []
    for number, line in enumerate(lines, start=1):
        times = f"{_clock(line[0].start, kind)} --> {_clock(line[-1].end, kind)}"
        cues.append(f"{number}\n{times}\n{' '.join(word.text for word in line)}\n")
    return "\n".join((["WEBVTT\n"] if kind == "vtt" else []) + cues)


def _clock(seconds: float, kind: str) -> str:
    milliseconds = round(1000 * seconds)
    whole, rest = divmod(milliseconds, 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{',' if kind == 'srt' else '.'}{rest:03d}"
