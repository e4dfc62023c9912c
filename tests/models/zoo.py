"""A tiny model and batch of every class, for the tests of all classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import data2vec
from data2vec.configuration import PretrainedConfig
from data2vec.modeling import PreTrainedModel

AUDIO = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 2,
    "conv_pos_kernel_size": 5,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
    "classifier_proj_size": 16,
    "tdnn_dim": (16, 16, 24),
    "tdnn_kernel": (5, 3, 1),
    "tdnn_dilation": (1, 2, 1),
    "xvector_output_dim": 16,
    "mask_time_length": 3,
    "num_labels": 3,
}
TEXT = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "num_labels": 3,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "out_indices": (2, 3, 4, 5),
    "auxiliary_channels": 16,
    "num_labels": 3,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Audio": ("Data2VecAudioConfig", AUDIO),
    "Text": ("Data2VecTextConfig", TEXT),
    "Vision": ("Data2VecVisionConfig", VISION),
}
STILL = {  # no randomness in training
    "Audio": {
        "hidden_dropout": 0.0,
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
        "final_dropout": 0.0,
        "layerdrop": 0.0,
        "apply_spec_augment": False,
    },
    "Text": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "Vision": {"drop_path_rate": 0.0},
}
NAMES = [
    "Data2VecAudioModel",
    "Data2VecAudioForCTC",
    "Data2VecAudioForSequenceClassification",
    "Data2VecAudioForAudioFrameClassification",
    "Data2VecAudioForXVector",
    "Data2VecTextModel",
    "Data2VecTextForMaskedLM",
    "Data2VecTextForCausalLM",
    "Data2VecTextForSequenceClassification",
    "Data2VecTextForMultipleChoice",
    "Data2VecTextForTokenClassification",
    "Data2VecTextForQuestionAnswering",
    "Data2VecVisionModel",
    "Data2VecVisionForImageClassification",
    "Data2VecVisionForSemanticSegmentation",
]
HEADS = [name for name in NAMES if "For" in name]
EXTRA = {  # fields that a class needs
    "Data2VecTextForCausalLM": {"is_decoder": True},
    "Data2VecTextForQuestionAnswering": {"num_labels": 2},
    "Data2VecVisionForSemanticSegmentation": {"out_indices": (0, 1, 2, 3)},
}
MAIN_OUTPUT = {
    "Model": "last_hidden_state",
    "QuestionAnswering": "start_logits",
    "XVector": "embeddings",
}
FRAMES = 59  # of a clip of SAMPLES
SAMPLES = 1201


def modality(name: str) -> str:
    return next(word for word in CONFIGS if name.startswith(f"Data2Vec{word}"))


def task(name: str) -> str:
    return name.removeprefix(f"Data2Vec{modality(name)}").removeprefix("For")


def main_output(name: str) -> str:
    return MAIN_OUTPUT.get(task(name), "logits")


def fields(name: str, **changes: Any) -> dict[str, Any]:
    """What a tiny model of class `name` is built from, without randomness in training."""
    word = modality(name)
    return {**CONFIGS[word][1], **STILL[word], **EXTRA.get(name, {}), **changes}


def config(name: str, **changes: Any) -> PretrainedConfig:
    made: PretrainedConfig = getattr(data2vec, CONFIGS[modality(name)][0])(**fields(name, **changes))
    return made


def perturb(model: torch.nn.Module, seed: int = 0) -> None:
    """Make every parameter generic: nothing is 0 or 1, nothing equals its neighbour."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.1 if parameter.dim() < 2 else 0.05))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand(buffer.shape, generator=generator))


def build(name: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny model of class `name` in eval mode, every parameter generic."""
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(data2vec, name)(config(name, **changes))
    perturb(model, seed)
    return model.eval()


def audio_batch(lengths: tuple[int, ...] = (SAMPLES, 900), seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    waveform = torch.randn(len(lengths), max(lengths), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_values": waveform * mask, "attention_mask": mask}


def text_batch(lengths: tuple[int, ...] = (12, 7), seed: int = 1, pad: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 60, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask}


def vision_batch(size: tuple[int, int] = (32, 32), seed: int = 1, images: int = 2) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(seed))}


BATCHES: dict[str, Callable[..., dict[str, torch.Tensor]]] = {
    "Audio": audio_batch,
    "Text": text_batch,
    "Vision": vision_batch,
}


def batch(name: str, **options: Any) -> dict[str, torch.Tensor]:
    """Inputs for class `name`; speech and text hold one padded row."""
    made = BATCHES[modality(name)](**options)
    if task(name) == "MultipleChoice":
        made = {key: torch.stack([value, value.flip(0)], dim=1) for key, value in made.items()}
    return made


def labels(name: str, frames: int = FRAMES, images: int = 2) -> dict[str, torch.Tensor]:
    """Labels for `batch`."""
    generator = torch.Generator().manual_seed(2)
    classes = torch.randint(0, 3, (2, frames), generator=generator)
    tokens = torch.randint(4, 60, (2, 12), generator=generator)
    tokens[1, 7:] = -100
    made: dict[str, dict[str, torch.Tensor]] = {
        "Model": {},
        "CTC": {"labels": torch.tensor([[3, 4, 4, 5, 2], [6, 7, -100, -100, -100]])},
        "SequenceClassification": {"labels": torch.tensor([2, 0])},
        "AudioFrameClassification": {"labels": torch.nn.functional.one_hot(classes, 3)},
        "XVector": {"labels": torch.tensor([1, 2])},
        "MaskedLM": {"labels": tokens},
        "CausalLM": {"labels": tokens},
        "MultipleChoice": {"labels": torch.tensor([1, 0])},
        "TokenClassification": {"labels": torch.where(tokens < 0, -100, tokens % 3)},
        "QuestionAnswering": {"start_positions": torch.tensor([1, 50]), "end_positions": torch.tensor([3, 4])},
        "ImageClassification": {"labels": torch.tensor([1, 0])},
        "SemanticSegmentation": {"labels": torch.randint(0, 3, (images, 32, 32), generator=generator)},
    }
    return made[task(name)]


@dataclass(frozen=True)
class Case:
    """One row of a parametrised test: a class and the fields that differ from the tiny model's."""

    name: str
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.changes)

    def __str__(self) -> str:
        shown = "-".join(f"{key}={value}" for key, value in self.changes)
        return f"{self.name.removeprefix('Data2Vec')}{'-' if shown else ''}{shown}"


def case(name: str, **changes: Any) -> Case:
    return Case(name, tuple(changes.items()))
