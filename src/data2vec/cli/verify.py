"""``data2vec verify [HUB-ID ...]``: the known numbers of the published checkpoints, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from data2vec.cli.arguments import parse
from data2vec.errors import UserError

_IDS = (0, 31414, 232, 328, 740, 1140, 12695, 69, 46078, 1588, 2)


@dataclass(frozen=True)
class Check:
    """One known number.

    Attributes:
        checkpoint: hub id.
        auto: the auto class that loads the model.
        what: a few words.
        measure: (model, hub id, file) -> what is compared.
        expected: what it must be: a value or nested lists of numbers, to 1e-4.
        needs: which argument of the command names the file that it reads, if any.
    """

    checkpoint: str
    auto: str
    what: str
    measure: Callable[[Any, str, Path | None], Any]
    expected: Any
    needs: str | None = None


def _text_corner(model: Any, _id: str, _file: Path | None) -> Any:
    import torch

    return model(torch.tensor([_IDS]))[0][0, :3, :3].tolist()


def _image_logits(model: Any, hub_id: str, file: Path | None) -> Any:
    from data2vec.processing.vision import BeitImageProcessor

    pixels = BeitImageProcessor.from_pretrained(hub_id)([file], return_tensors="pt")["pixel_values"]
    return model(pixels).logits[0, :3].tolist()


def _spoken(model: Any, hub_id: str, file: Path | None) -> Any:
    from data2vec.pipelines.pipeline import pipeline

    return pipeline("automatic-speech-recognition", model, processor=hub_id)(file)["text"].lower()


def _image_shape(model: Any, _id: str, _file: Path | None) -> Any:
    import torch

    return list(model(torch.zeros(1, 3, 224, 224)).last_hidden_state.shape)


CHECKS = (  # integration tests of transformers 5 for these checkpoints
    Check(
        "facebook/data2vec-text-base", "AutoModelForMaskedLM", "scores of three tokens", _text_corner,
        [[0.2328, 0.0, 1.1710], [2.2525, 0.0, 1.9937], [2.1280, 0.0, 1.8691]],
    ),
    Check(
        "facebook/data2vec-text-base", "AutoModel", "features of three tokens", _text_corner,
        [[0.1998, -0.0379, 0.0024], [-0.0971, -0.2214, -0.1798], [-0.0789, -0.2400, -0.1898]],
    ),
    Check(
        "facebook/data2vec-vision-base-ft1k", "AutoModelForImageClassification", "COCO 000000039769.jpg, three classes",
        _image_logits, [0.3277, -0.1395, 0.0911], "image",
    ),
    Check("facebook/data2vec-vision-base", "AutoModel", "shape of the features", _image_shape, [1, 197, 768]),
    Check(
        "facebook/data2vec-audio-base-960h", "AutoModelForCTC", "LibriSpeech 1272-141231-0000", _spoken,
        "a man said to the universe sir i exist", "audio",
    ),
)  # fmt: skip


@dataclass
class Arguments:
    """Load published checkpoints and compare what they give with the numbers that are known of them.

    Attributes:
        checkpoints: hub ids; all that are known if none is given.
        image: the COCO picture 000000039769.jpg, for the checks that read it.
        audio: the LibriSpeech recording 1272-141231-0000, for the checks that read it.
    """

    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ()
    image: Path | None = None
    audio: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Check, print a line each; the status is 1 where a number differs."""
    arguments = parse(Arguments, argv, prog="data2vec verify")
    known = {check.checkpoint for check in CHECKS}
    for name in arguments.checkpoints:
        if name not in known:
            raise UserError(f"no number is known of {name!r}; known: {', '.join(sorted(known))}")
    failed = 0
    for check in CHECKS:
        if arguments.checkpoints and check.checkpoint not in arguments.checkpoints:
            continue
        file = getattr(arguments, check.needs) if check.needs else None
        if check.needs and file is None:
            print(f"skipped  {check.checkpoint}: {check.what} (give --{check.needs} FILE)")
            continue
        found = run(check, file)
        right = agrees(found, check.expected)
        failed += not right
        said = "" if right else f": {found}, expected {check.expected}"
        print(f"{'ok' if right else 'WRONG':<8} {check.checkpoint}: {check.what}{said}")
    return int(failed > 0)


def run(check: Check, file: Path | None) -> Any:
    """What the checkpoint gives.

    Raises:
        UserError: it cannot be downloaded and is not cached.
    """
    import torch

    from data2vec import auto

    model = getattr(auto, check.auto).from_pretrained(check.checkpoint)
    with torch.inference_mode():
        return check.measure(model, check.checkpoint, file)


def agrees(found: Any, expected: Any) -> bool:
    """Equal, numbers to 1e-4 (they are known to four digits)."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(agrees(a, b) for a, b in zip(found, expected, strict=True))
    return abs(found - expected) <= 1e-4 if isinstance(expected, float) else bool(found == expected)
