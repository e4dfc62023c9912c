"""Tasks of sound.

An input is a path, the bytes of a file, an array or tensor of samples at the model's rate, or ``{"raw": samples,
"sampling_rate": rate}``; files and dictionaries may have any rate and several channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.decoding.ctc import Scorer, beam_search, greedy, log_softmax
from data2vec.decoding.long import score_chunks
from data2vec.decoding.transcript import Transcript, write_out
from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.pipelines.labels import names, probabilities, ranked
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.speech import Wav2Vec2Processor

Row = npt.NDArray[np.float32]


def transcribe(
    model: PreTrainedModel,
    processor: Wav2Vec2Processor,
    inputs: Sequence[Any],
    *,
    return_timestamps: str | bool = False,
    chunk_length_s: float = 30.0,
    stride_length_s: float = 5.0,
    beam: int = 1,
    scorer: Scorer | None = None,
) -> list[Any]:
    """What is said.

    Args:
        model: with a CTC head.
        processor: of the model.
        inputs: see the module.
        return_timestamps: ``"word"`` or ``"char"`` adds ``chunks`` with their times; True is ``"word"``.
        chunk_length_s: longer recordings are heard in chunks of this many seconds; 0: at once.
        stride_length_s: seconds that a chunk hears on either side of what is kept of it.
        beam: texts kept in a beam search; 1: the best letter of each frame.
        scorer: language model or hot words for the search (`data2vec.decoding.language`).

    Returns:
        ``{"text"}`` each, with `return_timestamps` ``"chunks": [{"text", "timestamp": (start, end)}]`` in seconds.
    """
    kinds = {False: None, True: "word", "word": "word", "char": "char"}
    if return_timestamps not in kinds:
        raise UserError(f"return_timestamps={return_timestamps!r}: choose 'word', 'char' or False")
    extractor = processor.feature_extractor
    limit = (chunk_length_s, stride_length_s)
    found = _frames(model, extractor, _rows(extractor, inputs), lambda output: output.logits, limit)
    pieces = kinds[return_timestamps]
    answers = []
    for logits in found:
        scores = log_softmax(logits)
        blank = int(model.config.pad_token_id or 0)
        best = greedy(scores, blank) if beam == 1 else beam_search(scores, blank, beam=beam, scorer=scorer)[0]
        transcript = _spell(model, processor, best)
        answer: dict[str, Any] = {"text": transcript.text}
        if pieces:
            parts = transcript.words if pieces == "word" else transcript.characters
            answer["chunks"] = [{"text": part.text, "timestamp": (part.start, part.end)} for part in parts]
        answers.append(answer)
    return answers


def _spell(model: PreTrainedModel, processor: Wav2Vec2Processor, best: Any) -> Transcript:
    tokenizer, config = processor.tokenizer, model.config
    vocabulary = tokenizer.get_vocab()
    symbols = [""] * max(config.vocab_size, 1 + max(vocabulary.values()))
    for symbol, index in vocabulary.items():
        if symbol not in tokenizer.all_special_tokens:
            symbols[index] = symbol.lower() if tokenizer.do_lower_case else symbol
    whole = config.extra.get("label_units") in ("words", "phones")  # each symbol stands for itself
    delimiter = None if whole else vocabulary.get(tokenizer.word_delimiter_token or " ")
    return write_out(best, symbols, delimiter, _seconds(model, processor.feature_extractor))


def classify(
    model: PreTrainedModel,
    processor: Wav2Vec2FeatureExtractor,
    inputs: Sequence[Any],
    *,
    top_k: int | None = 5,
    function_to_apply: str | None = None,
) -> list[Any]:
    """What a clip is.

    Returns:
        ``[{"score", "label"}, ...]`` each, best first, `top_k` of them (all if None).
    """
    output, _ = _run(model, processor, _rows(processor, inputs))
    return ranked(model, output.logits, top_k, function_to_apply)


def classify_frames(
    model: PreTrainedModel,
    processor: Wav2Vec2FeatureExtractor,
    inputs: Sequence[Any],
    *,
    threshold: float = 0.5,
    chunk_length_s: float = 30.0,
    stride_length_s: float = 5.0,
) -> list[Any]:
    """Who speaks, or what sounds, when.

    Args:
        model: with a frame head.
        processor: of the model.
        inputs: see the module.
        threshold: where classes are independent, the probability from which one is there.
        chunk_length_s: see `transcribe`.
        stride_length_s: see `transcribe`.

    Returns:
        ``[{"label", "score", "timestamp": (start, end)}, ...]`` each, in the order of time: stretches of frames of one
        class. Classes exclude one another unless ``problem_type="multi_label_classification"``.
    """
    exclusive = model.config.problem_type != "multi_label_classification"
    function = "softmax" if exclusive else "sigmoid"
    limit = (chunk_length_s, stride_length_s)
    rows = _rows(processor, inputs)
    found = _frames(model, processor, rows, lambda out: probabilities(out.logits, model.config, function), limit)
    seconds, labels = _seconds(model, processor), names(model)
    answers = []
    for scores in found:
        active = scores == scores.max(axis=1, keepdims=True) if exclusive else scores >= threshold
        stretches: list[dict[str, Any]] = []
        for index, label in enumerate(labels):
            for on, frames in groupby(range(len(scores)), key=active[:, index].__getitem__):
                place = list(frames)
                if on:
                    score = float(scores[place, index].mean())
                    times = (place[0] * seconds, (place[-1] + 1) * seconds)
                    stretches.append({"label": label, "score": score, "timestamp": times})
        answers.append(sorted(stretches, key=lambda stretch: stretch["timestamp"]))
    return answers


def compare_speakers(
    model: PreTrainedModel, processor: Wav2Vec2FeatureExtractor, inputs: Sequence[Any], *, threshold: float = 0.7
) -> list[Any]:
    """Whether two clips are of one speaker.

    Args:
        model: with an x-vector head.
        processor: of the model.
        inputs: pairs (tuples) of what the module describes.
        threshold: cosine from which two are one.

    Returns:
        ``{"score", "label"}`` each: the cosine of both embeddings, ``"same"`` or ``"different"``.
    """
    for pair in inputs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise UserError(
                f"speaker-verification compares pairs: give a tuple of two clips, not {type(pair).__name__}"
            )
    output, _ = _run(model, processor, _rows(processor, [clip for pair in inputs for clip in pair]))
    first, second = output.embeddings.float().view(len(inputs), 2, -1).unbind(dim=1)
    scores = F.cosine_similarity(first, second).tolist()
    return [{"score": score, "label": "same" if score >= threshold else "different"} for score in scores]


def features(
    model: PreTrainedModel, processor: Wav2Vec2FeatureExtractor, inputs: Sequence[Any], *, return_tensors: bool = False
) -> list[Any]:
    """The last hidden states, (1, frames, width) each: nested lists, or tensors."""
    output, lengths = _run(model, processor, _rows(processor, inputs))
    hidden = output.last_hidden_state.float().cpu()
    extra = int(getattr(model.config, "num_extra_tokens", 0))
    found = [row[None, : extra + length] for row, length in zip(hidden, lengths, strict=True)]
    return found if return_tensors else [row.tolist() for row in found]


# Sound to rows, rows to frames


def _rows(extractor: Wav2Vec2FeatureExtractor, inputs: Sequence[Any]) -> list[Row]:
    """Clips, each normalised by itself, not padded."""
    rows = []
    for clip in inputs:
        rate = extractor.sampling_rate
        if isinstance(clip, Mapping):
            samples = clip.get("raw", clip.get("array"))
            if samples is None or "sampling_rate" not in clip:
                raise UserError('a dictionary of sound holds "raw" (or "array") and "sampling_rate"')
            clip, rate = samples, int(clip["sampling_rate"])
        single = extractor([clip], sampling_rate=rate, resample=True, mix_down=True)
        rows.append(np.asarray(torch.as_tensor(single["input_values"][0]).cpu(), dtype=np.float32))
    return rows


def _run(model: PreTrainedModel, extractor: Wav2Vec2FeatureExtractor, rows: Sequence[Row]) -> tuple[Any, list[int]]:
    """The model's output for a padded batch, and how many frames of each row are valid."""
    needed = model.config.receptive_field
    for index, row in enumerate(rows):
        if len(row) < needed:
            raise UserError(f"clip {index} is too short: {len(row)} samples, the model needs {needed}")
    lengths = torch.tensor([len(row) for row in rows])
    waveforms = torch.full((len(rows), int(lengths.max())), extractor.padding_value)
    for waveform, row in zip(waveforms, rows, strict=True):
        waveform[: len(row)] = torch.from_numpy(row)
    mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
    output = model(waveforms.to(model.device, model.dtype), mask.to(model.device))
    valid = getattr(output, "frame_mask", None)
    frames = [model.config.frames(len(row)) for row in rows] if valid is None else valid.sum(dim=1).tolist()
    return output, [int(count) for count in frames]


def _frames(
    model: PreTrainedModel,
    extractor: Wav2Vec2FeatureExtractor,
    rows: Sequence[Row],
    read: Callable[[Any], Tensor],
    limit: tuple[float, float],
) -> list[Row]:
    """(T, C) of each row: short rows in one batch, a long one chunk by chunk."""
    length, context = (round(seconds * extractor.sampling_rate) for seconds in limit)
    if model.config.add_adapter:
        length = 0  # its strides would not fit the chunks
    found: dict[int, Row] = {}
    short = [index for index, row in enumerate(rows) if not length or len(row) <= length]
    if short:
        output, lengths = _run(model, extractor, [rows[index] for index in short])
        scores = read(output).float().cpu().numpy()
        found = {index: row[:n] for index, row, n in zip(short, scores, lengths, strict=True)}

    def score(piece: Row) -> Row:
        missing = max(0, model.config.receptive_field - len(piece))  # the end of a recording
        output, _ = _run(model, extractor, [np.pad(piece, (0, missing))])
        scores: Row = read(output)[0].float().cpu().numpy()
        return scores

    for index, row in enumerate(rows):
        if index not in found:
            ratio = model.config.inputs_to_logits_ratio
            parts = {"length": length, "context": context, "ratio": ratio}
            frames = score_chunks(score, partial(_cut, row), len(row), **parts)
            found[index] = frames[: model.config.frames(len(row))]
    return [found[index] for index in range(len(rows))]


def _cut(row: Row, start: int, stop: int) -> Row:
    return row[start:stop]


def _seconds(model: PreTrainedModel, extractor: Wav2Vec2FeatureExtractor) -> float:
    return float(model.config.inputs_to_logits_ratio / extractor.sampling_rate)
