"""Pictures where people look: what a model attends to, where its words are in a recording, its maps, its features."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from data2vec.data.labelled.audio import Timeline
from data2vec.data.labelled.example import Example, Turn, opened
from data2vec.processing.waveform import load_waveform
from data2vec.tasks.embed import states
from data2vec.tasks.figures import (
    Floats,
    Track,
    figure,
    heated,
    laid_over,
    legend,
    matrix,
    over_time,
    picture,
    plane,
    scatter,
    spectrogram,
)
from data2vec.tasks.pictures import read_picture
from data2vec.tasks.report import whole_page
from data2vec.tasks.run import batches, inputs_of
from data2vec.tasks.task import Downstream, Item, Prediction, collate

_SECONDS, _TOKENS, _HEADS, _POINTS, _WIDTH = 20.0, 32, 12, 500, 190
"""The most of each that a picture shows; and the width of a small picture."""


def look(task: Downstream, items: Sequence[Item], predictions: Sequence[Prediction], most: int) -> list[str]:
    """Pictures of the first examples, as HTML.

    Args:
        task: its model is left in eval mode.
        items: rows of the examples.
        predictions: one an example, in the order of the items.
        most: so many examples.
    """
    task.model.eval()
    first: dict[int, Item] = {}
    for item in items:
        first.setdefault(id(item.example), item)
    named: Any = task
    parts = []
    if "map" in (predictions[0] if predictions else ()):
        parts.append(legend(named.names))
    for item, prediction in list(zip(first.values(), predictions, strict=True))[:most]:
        shown = "".join(_figures(task, item, prediction))
        parts.append(
            f'<div class="look"><p>{escape(_title(item.example, prediction))}</p>{shown}</div>' if shown else ""
        )
    return parts


def _title(example: Example, prediction: Prediction) -> str:
    """What it is, what is true, and what was answered, where these are short."""
    words = [Path(example.source).name if isinstance(example.input, Path) else str(example.source)[:120]]
    if isinstance(example.target, str) and example.target != example.input:
        words.append(f"true: {example.target}")
    said = next((str(prediction[key]) for key in ("label", "text", "answer", "value") if key in prediction), "")
    return "; ".join([*words, *([f"answered: {said[:200]}"] if said else [])])


def _figures(task: Downstream, item: Item, prediction: Prediction) -> list[str]:
    if "map" in prediction:
        return _maps(task, item.example, prediction["map"])
    kind = task.model.main_input_name
    if kind == "pixel_values":
        return _lit(item.example, attention(task, item), grid_of(task, item))
    if kind == "input_values":
        pair = isinstance(item.example.input, tuple)
        return [] if pair else _heard(task, item, prediction)
    return _read(task, item)


# Attention


@torch.no_grad()
def attention(task: Downstream, item: Item) -> npt.NDArray[np.float32]:
    """Weights of the last block for a row: (heads, T, T), extra tokens in front included."""
    batch = _batch(task, [item])
    model: Any = task.model
    kernel = model.config.attn_implementation
    model.set_attn_implementation("eager")  # the one that tells its weights
    try:
        weights: Tensor = model(**inputs_of(batch), output_attentions=True).attentions[-1]
    finally:
        model.set_attn_implementation(kernel)
    return weights[row_of(item)].float().cpu().numpy()


def row_of(item: Item) -> int:
    """Which row of the network's batch is looked at: the right option of several, else the only one."""
    return item.example.target if hasattr(item.example.input, "options") and item.example.target is not None else 0


def _batch(task: Downstream, items: Sequence[Item]) -> dict[str, Tensor]:
    batch = collate([task.encode(item, None) for item in items], task.fills)
    return {name: value.to(task.model.device) for name, value in batch.items()}


# Pictures


def grid_of(task: Downstream, item: Item) -> tuple[int, int]:
    """Rows and columns of patches."""
    _, height, width = task.encode(item, None)["pixel_values"].shape
    patch = task.model.config.patch_shape
    return height // patch[0], width // patch[1]


def _lit(example: Example, weights: npt.NDArray[np.float32], grid: tuple[int, int]) -> list[str]:
    """A picture, and what each head of the last block attends to in it: from the CLS token, or from all patches."""
    image = read_picture(example.input)
    extra = weights.shape[-1] - grid[0] * grid[1]
    heads = (weights[:, 0, extra:] if extra else weights.mean(axis=1)).reshape(-1, *grid)
    large = image.resize((2 * _WIDTH, round(2 * _WIDTH * image.height / image.width)), Image.Resampling.NEAREST)
    shown = [figure(picture(heated(large, head), _WIDTH), f"head {i + 1}") for i, head in enumerate(heads[:_HEADS])]
    return [figure(picture(image, _WIDTH), "picture"), *shown]


def _maps(task: Any, example: Example, answer: npt.NDArray[np.uint8]) -> list[str]:
    """A picture with what was answered, and what is true, laid over."""
    image = read_picture(example.input)
    shown = {"picture": image, "answered": laid_over(image, answer)}
    if example.target is not None:
        truth = task.label_map(example)
        over = np.asarray(laid_over(image, truth.astype(np.uint8))).copy()
        over[truth == 255] = 255
        shown["true (white does not count)"] = Image.fromarray(over)
    return [figure(picture(each, 300), caption) for caption, each in shown.items()]


# Sound


def _heard(task: Any, item: Item, prediction: Prediction) -> list[str]:
    """The spectrogram, with words or turns below it; of one answer a clip, with what the last block attends to."""
    example, rate = item.example, task.extractor.sampling_rate
    wave = load_waveform(opened(example.input), rate, 0, round(_SECONDS * rate))
    seconds, tracks, curve = len(wave) / rate, list[Track](), None
    if "words" in prediction:
        words = [Turn(word["start"], word["end"], word["word"]) for word in prediction["words"]]
        tracks.append(("answered", words))
    elif "turns" in prediction:
        truth = example.target.turns if isinstance(example.target, Timeline) else ()
        answered = [Turn(*turn) for turn in prediction["turns"]]
        tracks += _by_label("true", truth) + _by_label("answered", answered)
    else:
        weights = attention(task, item)
        extra = weights.shape[-1] - task.model.config.frames(round(item.size))
        curve = weights[:, :, extra:].mean(axis=(0, 1))
        curve = curve[: max(1, round(len(curve) * seconds * rate / item.size))]
    cut = [(name, [_cut(turn, seconds) for turn in turns if turn.start < seconds]) for name, turns in tracks]
    below = "attention: what a frame gets from all, mean of the last block's heads" if curve is not None else ""
    return [figure(over_time(spectrogram(wave, rate), seconds, cut, curve), below)]


def _cut(turn: Turn, seconds: float) -> Turn:
    return turn._replace(end=min(turn.end, seconds))


def _by_label(side: str, turns: Sequence[Turn], most: int = 6) -> list[Track]:
    """A row a speaker, so that those who talk at once are seen; many names share a row."""
    names = sorted({turn.label for turn in turns})
    if not 1 < len(names) <= most:
        return [(side, turns)]
    return [(side if i == 0 else "", [t for t in turns if t.label == name]) for i, name in enumerate(names)]


# Text


def _read(task: Any, item: Item) -> list[str]:
    """Which token attends to which: the mean over the heads of the last block."""
    weights = attention(task, item)
    ids = task.encode(item, None)["input_ids"]
    ids = ids[row_of(item)] if ids.ndim == 2 else ids
    extra = weights.shape[-1] - len(ids)
    pad = task.fills["input_ids"]
    known = [int(i) for i in ids if i != pad][:_TOKENS]
    shares = weights[:, extra:, extra:].mean(axis=0)[: len(known), : len(known)]
    names = [task.tokenizer.decode([i]).strip() or "\u2423" for i in known]
    return [figure(matrix(names, shares), "a row: what this token attends to (mean of the last block's heads)")]


# Features


def features_plot(task: Downstream, items: Sequence[Item], budget: int) -> str:
    """Means of the last block's features in the plane of their greatest variance, coloured by the true class.

    Empty where an example has no class.
    """
    chosen = [item for item in items if isinstance(item.example.target, str)][:_POINTS]
    answers = getattr(task, "answer", None)
    if answers is None or answers.problem != "single_label" or len(chosen) < 3:
        return ""
    task.model.eval()
    vectors: dict[int, Floats] = {}
    for places in batches(chosen, budget, alike=not task.fills):
        batch = inputs_of(_batch(task, [chosen[place] for place in places]))
        rows = states(task.model.base_model, batch)
        vectors |= {place: row.mean(dim=0).numpy() for place, row in zip(places, rows, strict=True)}
    points = plane(np.stack([vectors[place] for place in range(len(chosen))]))
    return figure(scatter(points, [item.example.target for item in chosen]), f"{len(chosen)} examples, by true class")


def write_features_page(features: Path, page: Path) -> None:
    """A picture of what `data2vec.tasks.embed.embed_inputs` wrote, in the plane: files are coloured by their folder."""
    vectors = {name: value if value.ndim == 1 else value.mean(dim=0) for name, value in load_file(features).items()}
    folders = [Path(name).parent.name if Path(name).suffix else "text" for name in vectors]
    points = plane(np.stack([vector.numpy() for vector in vectors.values()]))
    shown = figure(scatter(points, folders, 620), f"{len(folders)} inputs, in the plane of their greatest variance")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(whole_page(features.name, f"<h1>{escape(features.name)}</h1>{shown}"), encoding="utf-8")
