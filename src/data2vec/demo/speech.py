"""Twenty words in a hundred voices, synthesised by espeak-ng from the package espeakng-loader."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data2vec.errors import require

WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
)
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")

_SYNCHRONOUS, _UTF8, _RATE, _PITCH, _RANGE = 2, 1, 1, 3, 4  # speak_lib.h: output mode, text flag, parameters
_Waves = list[npt.NDArray[np.int16]]


class Synthesizer:
    """espeak-ng, called through its C interface (speak_lib.h).

    Attributes:
        rate: samples a second of what it says.
        voices: names of the voices it can take on, sorted.

    Raises:
        ImportError: espeakng-loader is not installed.
    """

    def __init__(self) -> None:
        loader = require("espeakng_loader", extra="demo")
        data = Path(loader.get_data_path())
        self._library = ctypes.CDLL(str(loader.get_library_path()))
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0))
        assert self.rate > 0, f"espeak-ng does not start with the data in {data}"
        self.voices = sorted(path.name for path in (data / "voices" / "!v").iterdir())
        self._said: _Waves = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._hear)  # kept, or it would be collected while the library holds it
        self._library.espeak_SetSynthCallback(self._callback)

    def say(
        self, text: str, voice: str, *, accent: str, speed: int, pitch: int, liveliness: int, seed: int = 0
    ) -> npt.NDArray[np.int16]:
        """One utterance.

        Args:
            text: what to say.
            voice: one of `voices`.
            accent: one of `ACCENTS`.
            speed: words a minute, 80 to 450.
            pitch: 0 to 100; 50 is the voice's own.
            liveliness: range of the pitch, 0 to 100.
            seed: of the breath in the voice.

        Returns:
            (samples,) at `rate`.
        """
        self._library.espeak_SetVoiceByName(f"{accent}+{voice}".encode())
        for parameter, value in ((_RATE, speed), (_PITCH, pitch), (_RANGE, liveliness)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._library.espeak_ng_SetRandSeed(seed)
        self._said.clear()
        spoken = text.encode()
        self._library.espeak_Synth(spoken, len(spoken) + 1, 0, 0, 0, _UTF8, None, None)
        return np.concatenate(self._said) if self._said else np.zeros(0, dtype=np.int16)

    def _hear(self, wave: ctypes._Pointer[ctypes.c_short], samples: int, _events: int) -> int:
        if wave and samples > 0:
            self._said.append(np.ctypeslib.as_array(wave, (samples,)).copy())
        return 0  # go on


def write_speech(folder: Path, *, words: Sequence[str] = WORDS, voices: int | None = None, seed: int = 0) -> None:
    """Write ``train/WORD/VOICE.wav`` and ``dev/WORD/VOICE.wav``: each word once in each voice.

    Accent, speed and pitch are drawn anew for each utterance. No voice of dev, nor a relative of one (robert and
    robert2), is in train.

    Args:
        folder: where to.
        words: what is said.
        voices: how many of the voices, all for None.
        seed: of the draws.
    """
    import soundfile

    synthesizer, rng = Synthesizer(), np.random.default_rng(seed)
    chosen = sorted(rng.permutation(synthesizer.voices)[:voices].tolist())
    held_out = _held_out(chosen, rng)
    for word in words:
        for voice in chosen:
            wave = synthesizer.say(
                word,
                voice,
                accent=str(rng.choice(ACCENTS)),
                speed=int(rng.integers(120, 240)),
                pitch=int(rng.integers(25, 75)),
                liveliness=int(rng.integers(20, 80)),
                seed=int(rng.integers(2**31)),
            )
            if len(wave):
                file = folder / ("dev" if voice in held_out else "train") / word / f"{voice.replace(' ', '_')}.wav"
                file.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(file, wave, synthesizer.rate, subtype="PCM_16")


def _held_out(voices: Sequence[str], rng: np.random.Generator) -> set[str]:
    """About a quarter of the voices, whole families at a time: a voice's name without the number at its end."""
    families = sorted({_family(voice) for voice in voices})
    held = set(rng.permutation(families)[: max(1, len(families) // 4)].tolist())
    return {voice for voice in voices if _family(voice) in held}


def _family(voice: str) -> str:
    return re.sub(r"\d+$", "", voice).lower()
