"""Who is it: speaker embeddings, judged by pairs of recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.audio import read_audio_classes, read_trials
from data2vec.data.labelled.example import Example, Read
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.speakers import detection_cost, equal_error_rate
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.heads import Data2VecAudioForXVector
from data2vec.models.v2.heads import Data2Vec2AudioForXVector
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.tasks.classify import Answers
from data2vec.tasks.clips import FILLS, clip_length, read_clip
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.task import Item, Prediction, Rng, load_model, mean_loss, rows_of


class SpeakerVerification:
    """An embedding a recording, trained to tell the training speakers apart, compared by cosine."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-audio": Data2VecAudioForXVector,
        "data2vec2-audio": Data2Vec2AudioForXVector,
    }
    fills = FILLS
    metric = "eer"
    own_loss = False

    def __init__(self, model: PreTrainedModel, extractor: Wav2Vec2FeatureExtractor) -> None:
        self.model, self.extractor = model, extractor
        self.answer = Answers.of_model(model)

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the training speakers."""
        speakers = Answers.of_examples(train, "single_label", data.min_per_class)
        model = load_model(cls.classes, source, scratch=scratch, **speakers.fields, **fields)
        return cls(model, Wav2Vec2FeatureExtractor.from_pretrained(source))

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), Wav2Vec2FeatureExtractor.from_pretrained(folder))

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Clips to train on with their speakers, and pairs to be judged by.

        Clips to train on are those of the training side; of no side, those that no pair names.
        """
        trials = Path(data.trials) if data.trials else source / "trials_dev.txt"
        alone = source.is_file() and source.suffix == ".txt"
        if not alone and not trials.is_file():
            raise UserError(f"{trials}: no such list of pairs '1|0 fileA fileB'; name it with --data.trials")
        pairs = list(read_trials(source if alone else trials))
        if not alone:
            judged = {file.resolve() for pair in pairs if isinstance(pair, Example) for file in pair.input}
            for item in read_audio_classes(source, label=data.label or "speaker"):
                if isinstance(item, BadSample) or _to_train_on(item, judged):
                    yield item
        yield from pairs

    @staticmethod
    def example(file: str) -> Example:
        """A file to embed, or two with a tab between to compare."""
        first, tab, second = file.partition("\t")
        return Example(file, (Path(first), Path(second)) if tab else Path(file))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row a clip, two a pair."""
        for example in examples:
            try:
                yield from self._rows(example)
            except BadSample as error:
                yield error

    def _rows(self, example: Example) -> list[Item]:
        pair = isinstance(example.input, tuple)
        least = self.model.config.receptive_field
        rows = []
        for file in example.input if pair else (example.input,):
            samples = clip_length(file, self.extractor.sampling_rate)
            if samples < least:
                raise BadSample(file, f"is too short: {samples} samples, the model needs {least}")
            rows.append(Item(example, samples, file, key=str(file) if pair else None))
        problem = None if pair else self.answer.check(example)
        if problem:
            raise problem
        return rows

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_values (samples,) and, to train on, the speaker's number."""
        sample: Sample = {"input_values": read_clip(item.part, self.extractor, rng, augment)}
        if isinstance(item.example.target, str):
            sample["labels"] = self.answer.encode(item.example.target)
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Margin softmax; a clip counts 1."""
        return mean_loss(output, torch.tensor(float(len(batch["labels"])), device=output.loss.device))

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Embeddings."""
        return rows_of(output.embeddings)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """The cosine of a pair, or the embedding of a clip."""
        if len(answers) == 1:
            return {"embedding": [round(float(value), 6) for value in answers[0]]}
        one, other = (answer / max(float(np.linalg.norm(answer)), 1e-12) for answer in answers)
        return {"score": float(one @ other)}

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Equal error rate and least detection cost."""
        same = [bool(example.target) for example in examples]
        if all(same) or not any(same):
            raise UserError("pairs of one speaker and of two are needed to be judged by")
        scores = [prediction["score"] for prediction in predictions]
        return {"eer": equal_error_rate(same, scores), "min_dcf": detection_cost(same, scores)}

    def save_processor(self, folder: Path) -> None:
        """The feature extractor."""
        self.extractor.save_pretrained(folder)


def _to_train_on(clip: Example, judged: Set[Path]) -> bool:
    named = isinstance(clip.input, Path) and clip.input.resolve() in judged
    return clip.split == "train" or (not clip.split and not named)
