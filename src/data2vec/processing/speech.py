"""Sound and its transcription in one processor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Self

from data2vec.errors import UserError
from data2vec.hub import HUB_ARGUMENTS
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.ctc import Wav2Vec2CTCTokenizer
from data2vec.processing.processor import PROCESSOR_FILE, BatchFeature, new_folder, write_json


class Wav2Vec2Processor:
    """A feature extractor for sound and a CTC tokenizer for its transcription.

    Args:
        feature_extractor: prepares sound.
        tokenizer: turns transcriptions into labels, and ids into text.
    """

    def __init__(self, feature_extractor: Wav2Vec2FeatureExtractor, tokenizer: Wav2Vec2CTCTokenizer) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self._takes_text = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.feature_extractor!r}, {self.tokenizer!r})"

    def __call__(self, audio: Any = None, text: Any = None, **options: Any) -> BatchFeature:
        """Prepare sound, transcriptions, or both.

        Args:
            audio: what `Wav2Vec2FeatureExtractor` takes.
            text: what `Wav2Vec2CTCTokenizer` takes.
            options: for the extractor or the tokenizer, whichever knows the name; those that both know go to both.
                ``audio_kwargs={...}`` and ``text_kwargs={...}`` go to one only.

        Returns:
            The extractor's batch; with both, its ``labels`` are the text's ids. For `text` alone the tokenizer's batch.

        Raises:
            UserError: neither was given, or an option that nobody knows.
        """
        if self._takes_text and text is None:
            audio, text = None, audio
        if audio is None and text is None:
            raise UserError("give audio, text, or both")
        for_audio, for_text = self._share(options)
        labels = None if text is None else self.tokenizer(text, **for_text)
        if audio is None:
            assert labels is not None
            return labels
        batch = self.feature_extractor(audio, **for_audio)
        if labels is not None:
            batch["labels"] = labels["input_ids"]
        return batch

    def _share(self, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options of the extractor and of the tokenizer."""
        for_audio, for_text = dict(options.pop("audio_kwargs", {})), dict(options.pop("text_kwargs", {}))
        audio_names = {*signature(self.feature_extractor.__call__).parameters} - {"raw_speech"}
        text_names = {*signature(self.tokenizer.__call__).parameters} - {"text"}
        if unknown := options.keys() - audio_names - text_names:
            raise UserError(f"a processor has no option {', '.join(sorted(unknown))}")
        return (
            {**{key: value for key, value in options.items() if key in audio_names}, **for_audio},
            {**{key: value for key, value in options.items() if key in text_names}, **for_text},
        )

    def pad(self, input_features: Any = None, labels: Any = None, **options: Any) -> BatchFeature:
        """Collate prepared rows: `input_features` by the extractor, `labels` by the tokenizer, or both into one batch.

        Raises:
            UserError: neither was given, rows lack their ids, or labels are outside the vocabulary.
        """
        if input_features is None and labels is None:
            raise UserError("give input_features, labels, or both")
        padded = None if labels is None else self.tokenizer.pad(labels, **options)
        if input_features is None:
            assert padded is not None
            return padded
        batch = self.feature_extractor.pad(input_features, **options)
        if padded is not None:
            batch["labels"] = padded["input_ids"]
        return batch

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **options: Any) -> Any:
        """See `Wav2Vec2CTCTokenizer.decode`."""
        return self.tokenizer.decode(token_ids, skip_special_tokens, **options)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> Any:
        """See `Wav2Vec2CTCTokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens, **options)

    @contextmanager
    def as_target_processor(self) -> Iterator[None]:
        """Code for transformers 4 prepares labels inside this; ``processor(text=...)`` does the same."""
        warnings.warn("as_target_processor: pass text=... instead", DeprecationWarning, stacklevel=3)
        self._takes_text = True
        try:
            yield
        finally:
            self._takes_text = False

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, **options: Any) -> Self:
        """Read extractor and tokenizer from one folder or hub id.

        Args:
            path_or_id: folder or hub id.
            options: ``compat`` for both, other fields for the one that has them; or for `data2vec.hub.resolve`.
        """
        hub = {key: options.pop(key) for key in HUB_ARGUMENTS if key in options}
        compat = {key: options.pop(key) for key in ("compat",) if key in options}
        fields = {key: options.pop(key) for key in list(options) if key in Wav2Vec2FeatureExtractor().to_dict()}
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(path_or_id, **fields, **compat, **hub)
        return cls(extractor, Wav2Vec2CTCTokenizer.from_pretrained(path_or_id, **options, **compat, **hub))

    def save_pretrained(self, path: str | Path) -> None:
        """Write the files of both, and ``processor_config.json``, into a folder."""
        folder = new_folder(path)
        name = type(self).__name__
        self.feature_extractor.extra["processor_class"] = self.tokenizer.extra["processor_class"] = name
        self.feature_extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_json(
            folder / PROCESSOR_FILE, {"feature_extractor": self.feature_extractor.to_dict(), "processor_class": name}
        )
