"""Speech recognition by CTC: letters, words or phones, recordings of any length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from data2vec.auto import AUDIO2
from data2vec.data.audio import Sample
from data2vec.data.labelled.audio import read_transcripts
from data2vec.data.labelled.example import Example, Read
from data2vec.decoding.ctc import Hypothesis, Scorer, Scores, beam_search, greedy, log_softmax
from data2vec.decoding.language import Hotwords, Together, load_ngram
from data2vec.decoding.transcript import Transcript, write_out
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.transcripts import error_rate
from data2vec.hub import resolve
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.heads import Data2VecAudioForCTC
from data2vec.models.v2.heads import Data2Vec2AudioForCTC
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.ctc import Wav2Vec2CTCTokenizer
from data2vec.processing.speech import Wav2Vec2Processor
from data2vec.tasks.clips import FILLS, clip_length, frame_rows, join_frames, read_clip, read_window, windows
from data2vec.tasks.config import AugmentConfig, DecodeConfig, LabelledConfig
from data2vec.tasks.task import Item, Prediction, Rng, load_model, model_type

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_UNITS = "label_units"
"""Key of config.json under which a model says that its symbols are words or phones; letters do not say so."""


class SpeechRecognition:
    """What is said, and when."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-audio": Data2VecAudioForCTC,
        "data2vec2-audio": Data2Vec2AudioForCTC,
    }
    fills = FILLS
    own_loss = False

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Wav2Vec2Processor,
        data: LabelledConfig | None = None,
        decode: DecodeConfig | None = None,
    ) -> None:
        data = data or LabelledConfig()
        self.model, self.processor = model, processor
        self.extractor, tokenizer = processor.feature_extractor, processor.tokenizer
        self.seconds, self.lowercase = data.max_seconds, data.lowercase
        self.written: str = model.config.extra.get(_UNITS, "letters")
        self.vocabulary = tokenizer.get_vocab()
        self.blank: int = model.config.pad_token_id or 0
        self.symbols = _spelling(self.vocabulary, model.config.vocab_size, tokenizer.all_special_tokens)
        self.delimiter = None if self.written != "letters" else self.vocabulary.get(self._space)
        self.decode = decode or DecodeConfig()
        self.scorer = self._scorer()
        self.metric = "per" if self.written == "phones" else "wer"

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the symbols of the training transcripts; or a recogniser as it is."""
        tokenizer = _own_tokenizer(source) or build_tokenizer(train, data)
        fields = {"ctc_loss_reduction": "sum", "pad_token_id": tokenizer.pad_token_id, **fields}
        if model_type(source) == AUDIO2:  # hides frames, not channels: the recipes' channel masks are data2vec 1's
            fields["mask_feature_prob"] = 0.0
        vocab_size = max(tokenizer.get_vocab().values()) + 1
        model = load_model(cls.classes, source, scratch=scratch, vocab_size=vocab_size, **fields)
        if data.symbols != "letters":
            model.config.extra[_UNITS] = data.symbols
        return cls(model, Wav2Vec2Processor(Wav2Vec2FeatureExtractor.from_pretrained(source), tokenizer), data)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None, decode: DecodeConfig | None = None) -> Self:
        """A fine-tuned recogniser."""
        return cls(load_model(cls.classes, folder), Wav2Vec2Processor.from_pretrained(folder), data, decode)

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Recordings with transcripts."""
        return read_transcripts(source, column=data.label, phones=data.symbols == "phones")

    @staticmethod
    def example(file: str) -> Example:
        """A file to transcribe."""
        return Example(file, Path(file))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row a recording; for an answer, several of a long one."""
        rate = self.extractor.sampling_rate
        for example in examples:
            try:
                samples = clip_length(example.input, rate)
            except BadSample as error:
                yield error
                continue
            problem = self._problem(example, samples, train)
            if problem:
                yield BadSample(example.where, problem)
            elif train:
                yield Item(example, samples)
            else:
                for window in windows(samples, self.model, rate, self.seconds):
                    yield Item(example, window.stop - window.start, window)

    def _problem(self, example: Example, samples: int, train: bool) -> str:
        """Why a recording cannot be used."""
        config = self.model.config
        if samples < config.receptive_field:
            return f"is too short: {samples} samples, the model needs {config.receptive_field}"
        if example.target is None:
            return ""
        units = self.units(example.target)
        unknown = sorted({unit for unit in units if unit not in self.vocabulary})
        if unknown:
            return f"its transcript has {' '.join(unknown)!r}, which the vocabulary lacks"
        if not train:
            return ""
        if samples > self.seconds * self.extractor.sampling_rate:
            return f"is longer than data.max_seconds={self.seconds:g}"
        needed = len(units) + sum(a == b for a, b in pairwise(units))
        frames = config.frames(samples)
        if needed > frames:
            return f"its transcript of {len(units)} symbols needs {needed} frames, the recording has {frames}"
        return ""

    def units(self, text: str) -> list[str]:
        """A transcript as symbols: phones, words, or letters with the word delimiter for spaces.

        Words and letters are taken in the vocabulary's case.
        """
        if self.written == "phones":
            return text.split()
        text = text.lower() if self.lowercase else text
        if self.written == "words":
            cases = ((word, word.upper(), word.lower()) for word in text.split())
            return [next((case for case in each if case in self.vocabulary), each[0]) for each in cases]
        text = min((text, text.upper(), text.lower()), key=self._unknown)
        space = self.processor.tokenizer.word_delimiter_token or " "
        return [space if letter == " " else letter for letter in text]

    def _unknown(self, text: str) -> int:
        return sum(letter not in self.vocabulary for letter in text if letter.isalpha())

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_values (samples,) float32, and labels (symbols,) int64 to train on."""
        example = item.example
        if item.part is not None and (item.part.start or item.part.keep is not None):
            return {"input_values": read_window(example.input, item.part, self.extractor)}
        sample: Sample = {"input_values": read_clip(example.input, self.extractor, rng, augment)}
        if item.part is None and example.target is not None:
            labels = [self.vocabulary[unit] for unit in self.units(example.target)]
            sample["labels"] = np.array(labels, dtype=np.int64)
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """CTC summed over recordings; each counts 1 (fairseq ``sentence_avg``)."""
        return output.loss, torch.tensor(float(len(batch["labels"])), device=output.loss.device)

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores of each frame."""
        return frame_rows(output)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """Text with words in time."""
        return self.transcribe(join_frames(items, answers)).to_dict()

    def transcribe(self, logits: Scores) -> Transcript:
        """(T, V) scores of a recording to text."""
        config = self.model.config
        seconds = config.inputs_to_logits_ratio / self.extractor.sampling_rate
        return write_out(self.search(logits), self.symbols, self.delimiter, seconds)

    def search(self, logits: Scores) -> Hypothesis:
        """The best symbols as configured."""
        log_probs = log_softmax(logits)
        if self.decode.beam == 1:
            return greedy(log_probs, self.blank)
        return beam_search(log_probs, self.blank, beam=self.decode.beam, scorer=self.scorer)[0]

    def _scorer(self) -> Scorer | None:
        decode, scorers = self.decode, list[Scorer]()
        if (decode.lm or decode.hotwords) and self.delimiter is None:
            raise UserError(f"decode.lm and decode.hotwords are for letters, and this model recognises {self.written}")
        assert self.delimiter is not None or not (decode.lm or decode.hotwords)
        if decode.lm and self.delimiter is not None:
            scorers.append(
                load_ngram(decode.lm, self.symbols, self.delimiter, weight=decode.lm_weight, bonus=decode.word_bonus)
            )
        if decode.hotwords and self.delimiter is not None:
            words = [" ".join("".join(self.units(word)).split(self._space)) for word in decode.hotwords]
            scorers.append(Hotwords(words, self.symbols, self.delimiter, decode.hotword_weight))
        return Together(*scorers) if scorers else None

    @property
    def _space(self) -> str:
        return self.processor.tokenizer.word_delimiter_token or " "

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Word and character error rate with the 95 % interval of the first; of phones their error rate."""
        between = "" if self.written == "letters" else " "
        truth = [between.join(self.units(e.target)).replace(self._space, " ") for e in examples]
        given = [prediction["text"] for prediction in predictions]
        words = error_rate([text.split() for text in truth], [text.split() for text in given])
        rates = {self.metric: words.rate, f"{self.metric}_low": words.low, f"{self.metric}_high": words.high}
        if self.written != "phones":
            rates["cer"] = error_rate(truth, given, draws=1).rate
        return rates

    def save_processor(self, folder: Path) -> None:
        """Feature extractor and tokenizer."""
        self.processor.save_pretrained(folder)


def build_tokenizer(train: Sequence[Example], data: LabelledConfig) -> Wav2Vec2CTCTokenizer:
    """A vocabulary of the training transcripts: blank 0, the other special tokens, the word delimiter, symbols."""
    texts = [e.target.lower() if data.lowercase and data.symbols != "phones" else e.target for e in train]
    if data.symbols == "letters":
        units = {letter for text in texts for letter in text} - {" ", "|"}
    else:
        units = {unit for text in texts for unit in text.split()}
    vocabulary = {unit: index for index, unit in enumerate([*_SPECIAL, "|", *sorted(units - {*_SPECIAL})])}
    return Wav2Vec2CTCTokenizer(vocabulary)


def _own_tokenizer(source: str | Path) -> Wav2Vec2CTCTokenizer | None:
    """The tokenizer of a model that is a recogniser already."""
    try:
        resolve(source, "vocab.json")
    except UserError:
        return None
    return Wav2Vec2CTCTokenizer.from_pretrained(source)


def _spelling(vocabulary: Mapping[str, int], size: int, special: Sequence[str]) -> list[str]:
    """What each class is written as; special tokens are not written."""
    symbols = [""] * size
    for symbol, index in vocabulary.items():
        if index < size and symbol not in special:
            symbols[index] = symbol
    return symbols
