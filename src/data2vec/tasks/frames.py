"""One answer a frame: who speaks when, whether somebody does, which phone is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, permutations
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.audio import Timeline, read_timelines
from data2vec.data.labelled.example import Example, Read, Turn
from data2vec.decoding.long import Chunk
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.metrics import Confusion, ratio
from data2vec.evaluation.speakers import Diarization, diarization
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.heads import Data2VecAudioForAudioFrameClassification
from data2vec.models.v2.heads import Data2Vec2AudioForAudioFrameClassification
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.tasks.clips import clip_length, frame_rows, join_frames, read_window, windows
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.task import Item, Prediction, Rng, label_fields, label_names, load_model, order_labels

_MODE = "frame_labels"
"""Key of config.json under which a model says what its classes are."""
_UNLABELLED = -100
_SHORTEST = 0.1
"""Seconds: shorter pauses are filled, then shorter turns left out."""
_TOLERANCE = 0.5
"""Seconds by which a turn may last longer than its recording."""


class AudioFrames:
    """What happens in each frame (20 ms).

    Speakers are yes-or-no answers, so that several can talk at once; phones exclude one another. With ``turns`` the
    classes are numbers that fit each recording anew: the loss takes the best numbering (Yu et al. 2017, arXiv
    1607.00325; EEND, arXiv 1909.05952).
    """

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-audio": Data2VecAudioForAudioFrameClassification,
        "data2vec2-audio": Data2Vec2AudioForAudioFrameClassification,
    }
    fills: Mapping[str, float] = {"input_values": 0.0, "labels": _UNLABELLED}
    own_loss = True

    def __init__(
        self, model: PreTrainedModel, extractor: Wav2Vec2FeatureExtractor, data: LabelledConfig | None = None
    ) -> None:
        self.model, self.extractor = model, extractor
        self.names = label_names(model)
        self.mode = str(model.config.extra.get(_MODE, "names"))
        self.exclusive = model.config.problem_type == "single_label_classification"
        self.seconds = (data or LabelledConfig()).max_seconds
        self.metric = "accuracy" if self.exclusive else "der"
        self.frame = model.config.inputs_to_logits_ratio / extractor.sampling_rate

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the speakers or phones of the training recordings."""
        names = order_labels(turn.label for example in train for turn in example.target.turns)
        if data.frames == "speech":
            names = ["speech"]
        elif data.frames == "turns":
            names = [f"speaker{number + 1}" for number in range(data.speakers)]
        if not names:
            raise UserError(f"{train[0].source}: nobody speaks in the training recordings")
        kind = "single_label_classification" if data.frames == "phones" else "multi_label_classification"
        model = load_model(cls.classes, source, scratch=scratch, **label_fields(names), problem_type=kind, **fields)
        model.config.extra[_MODE] = data.frames
        return cls(model, Wav2Vec2FeatureExtractor.from_pretrained(source), data)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), Wav2Vec2FeatureExtractor.from_pretrained(folder), data)

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Recordings with turns."""
        return read_timelines(source, phones=data.frames == "phones")

    @staticmethod
    def example(file: str) -> Example:
        """A recording to label."""
        return Example(file, Path(file))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """Rows of at most `max_seconds`."""
        rate, least = self.extractor.sampling_rate, self.model.config.receptive_field
        for example in examples:
            try:
                samples = clip_length(example.input, rate)
            except BadSample as error:
                yield error
                continue
            if samples < least:
                yield BadSample(example.source, f"is too short: {samples} samples, the model needs {least}")
            elif problem := self._problem(example, samples / rate):
                yield BadSample(example.where, problem)
            else:
                for window in windows(samples, self.model, rate, self.seconds):
                    yield Item(example, window.stop - window.start, window)

    def _problem(self, example: Example, seconds: float) -> str:
        turns = example.target.turns if example.target else ()
        late = next((turn for turn in turns if turn.end > seconds + _TOLERANCE), None)
        if late is not None:
            return f"{late.label!r} is said to last until {late.end:.2f} s, and the recording ends at {seconds:.2f} s"
        labels = {turn.label for turn in turns}
        if self.mode == "turns" and len(labels) > len(self.names):
            return f"{len(labels)} people speak, data.speakers={len(self.names)}"
        if self.mode == "names" and (strange := sorted(labels - {*self.names})):
            hint = "" if self.exclusive else "; to tell new speakers apart: --data.frames turns"
            return f"{strange[0]!r} is none of the training data: {', '.join(self.names[:8])}{hint}"
        return ""

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_values (samples,) and labels: (T, C) float32 of 0 and 1, or (T,) int64; -100 where nothing is known."""
        window: Chunk = item.part
        sample: Sample = {"input_values": read_window(item.example.input, window, self.extractor)}
        if rng is not None and augment is not None and augment.noise:
            level = 10 ** (-rng.uniform(augment.noise, 60) / 20)
            noise = rng.standard_normal(len(sample["input_values"]), dtype=np.float32)
            sample["input_values"] = sample["input_values"] + np.float32(level) * noise
        if item.example.target is not None:
            frames = self.model.config.frames(window.stop - window.start)
            sample["labels"] = self.label(item.example.target, window.start, frames)
        return sample

    def label(self, timeline: Timeline, start: int, frames: int) -> npt.NDArray[Any]:
        """What holds in the middle of each frame, from sample `start` on."""
        config, rate = self.model.config, self.extractor.sampling_rate
        middles = (start + np.arange(frames) * config.inputs_to_logits_ratio + config.receptive_field / 2) / rate
        labels = np.zeros((frames, len(self.names)), dtype=np.float32)
        speakers = sorted({turn.label for turn in timeline.turns})
        for turn in timeline.turns:
            place = 0
            if self.mode != "speech":
                place = (speakers if self.mode == "turns" else self.names).index(turn.label)
            labels[(middles >= turn.start) & (middles < turn.end), place] = 1
        low, high = timeline.span or (-np.inf, np.inf)
        outside = (middles < low) | (middles >= high)
        for low, high in timeline.gaps:
            outside |= (middles >= low) & (middles < high)
        if self.exclusive:
            classes = np.where(labels.any(axis=1) & ~outside, labels.argmax(axis=1), _UNLABELLED)
            return classes.astype(np.int64)
        labels[outside] = _UNLABELLED
        return labels

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy over frames, or over yes-or-no answers under the best numbering of the speakers."""
        logits, labels = output.logits.float(), batch["labels"]
        if self.exclusive:
            total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_UNLABELLED, reduction="sum")
            return total, (labels != _UNLABELLED).sum().float()
        known = (labels[..., 0] >= 0).float()
        numberings = permutations(range(len(self.names))) if self.mode == "turns" else [range(len(self.names))]
        return numbered_loss(logits, labels.clamp(min=0), known, [tuple(order) for order in numberings]), known.sum()

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores of each frame."""
        return frame_rows(output)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """Turns in time."""
        if self.mode == "turns":
            answers = renumber(items, answers)
        logits = join_frames(items, answers)
        active = logits > 0 if not self.exclusive else np.eye(logits.shape[1], dtype=bool)[logits.argmax(axis=1)]
        shortest = 0 if self.exclusive else round(_SHORTEST / self.frame)
        turns = [
            Turn(round(start * self.frame, 3), round(stop * self.frame, 3), name)
            for name, column in zip(self.names, active.T, strict=True)
            for start, stop in stretches(column, shortest)
        ]
        return {"turns": [list(turn) for turn in sorted(turns)], "frames": logits.argmax(axis=1).tolist()}

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Of speakers the diarization error rate and its parts; of phones the share of right frames."""
        if self.exclusive:
            confusion = self.confusion(examples, predictions)
            assert confusion is not None
            return {"accuracy": confusion.accuracy, "macro_f1": confusion.macro_f1}
        total = collared = single = Diarization(0.0, 0.0, 0.0, 0.0)
        for example, prediction in zip(examples, predictions, strict=True):
            timeline: Timeline = example.target
            truth = [Turn(t.start, t.end, "speech" if self.mode == "speech" else t.label) for t in timeline.turns]
            answer = [Turn(*turn) for turn in prediction["turns"]]
            counted = partial(diarization, truth, span=timeline.span, gaps=timeline.gaps)
            total += counted(answer)
            collared += counted(answer, collar=0.25)
            ends = [time for turn in truth for time in turn[:2]] or [0.0]
            whole = timeline.span or (min(ends), max(ends))
            single += counted([Turn(*whole, "one")])
        return {
            "der": total.rate,
            "missed": ratio(total.missed, total.total),
            "false_alarm": ratio(total.false_alarm, total.total),
            "confused": ratio(total.confused, total.total),
            "der_collar": collared.rate,
            "der_single_speaker": single.rate,
        }

    def confusion(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Confusion | None:
        """Of phones, frame by frame."""
        if not self.exclusive:
            return None
        truth: list[int] = []
        given: list[int] = []
        for example, prediction in zip(examples, predictions, strict=True):
            labels = self.label(example.target, 0, len(prediction["frames"]))
            truth += labels[labels != _UNLABELLED].tolist()
            given += np.array(prediction["frames"])[labels != _UNLABELLED].tolist()
        counted = Confusion.of(truth, given, range(len(self.names)))
        return Confusion(tuple(self.names), counted.counts)

    def save_processor(self, folder: Path) -> None:
        """The feature extractor."""
        self.extractor.save_pretrained(folder)


def numbered_loss(logits: Tensor, labels: Tensor, known: Tensor, numberings: Sequence[tuple[int, ...]]) -> Tensor:
    """Binary cross-entropy summed over frames (the mean over classes), each row under its best numbering.

    Args:
        logits: (B, T, C).
        labels: (B, T, C) of 0 and 1.
        known: (B, T), 1 where a label counts.
        numberings: for each a class of the labels for every class of the logits.
    """
    positive = torch.einsum("btc,btd->bcd", F.logsigmoid(logits) * known[..., None], labels)
    negative = torch.einsum("btc,btd->bcd", F.logsigmoid(-logits) * known[..., None], 1 - labels)
    cost = -(positive + negative) / logits.shape[2]  # (B, C, C): class c of the logits as class d of the labels
    own = torch.arange(logits.shape[2], device=logits.device)
    sums = torch.stack([cost[:, own, list(order)].sum(dim=1) for order in numberings])
    return sums.min(dim=0).values.sum()


def renumber(items: Sequence[Item], answers: Sequence[Any]) -> list[npt.NDArray[np.float32]]:
    """Windows' numbers of speakers, each as the window before has them, by the frames that both have heard."""
    kept = [answers[0]]
    for before, item, scores in zip(items, items[1:], answers[1:], strict=False):
        shared = (before.part.stop - item.part.start) * len(kept[-1]) // (before.part.stop - before.part.start)
        old, new = np.tanh(kept[-1][-shared:] / 2), np.tanh(scores[:shared] / 2)
        length = min(len(old), len(new))
        old, new = old[:length], new[:length]
        best = max(permutations(range(scores.shape[1])), key=lambda order: float((old * new[:, list(order)]).sum()))
        kept.append(scores[:, list(best)])
    return kept


def stretches(active: npt.NDArray[np.bool_], shortest: int) -> list[tuple[int, int]]:
    """(first, last + 1) of each run of True, after pauses and then runs below `shortest` frames are taken out."""
    for value in (False, True):
        active = active.copy()
        start = 0
        for is_on, run in groupby(active.tolist()):
            stop = start + len(list(run))
            inside = value or (start > 0 and stop < len(active))
            if is_on == value and stop - start < shortest and inside:
                active[start:stop] = not value
            start = stop
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
