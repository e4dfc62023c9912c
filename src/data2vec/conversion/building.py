"""From tensors to modules, with every name and shape checked first."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data2vec.configuration import PretrainedConfig
from data2vec.conversion.architecture import Kind
from data2vec.conversion.errors import CheckpointError
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.models.vision.model import Data2VecVisionModel

Tensors = Mapping[str, Tensor]
_OPTIONAL = ("pooler.", "mask_embedding")
MODELS: dict[Kind, type[PreTrainedModel]] = {
    ("audio", 1): Data2VecAudioModel,
    ("text", 1): Data2VecTextModel,
    ("vision", 1): Data2VecVisionModel,
    ("audio", 2): Data2Vec2AudioModel,
    ("text", 2): Data2Vec2TextModel,
    ("vision", 2): Data2Vec2VisionModel,
}


def find_class(name: str) -> type[PreTrainedModel]:
    """A public model class by its name."""
    found = getattr(importlib.import_module("data2vec"), name, None)
    if found is None:
        raise CheckpointError(f"the checkpoint is a {name}, which this version does not have")
    assert isinstance(found, type) and issubclass(found, PreTrainedModel)
    return found


def empty_model(kind: type[PreTrainedModel], config: PretrainedConfig, weights: Tensors) -> PreTrainedModel:
    """A model on the meta device; a base model has a pooler only where there are weights for one.

    Raises:
        CheckpointError: the configuration makes no model.
    """
    pools = kind in MODELS.values() and not issubclass(kind, (Data2VecAudioModel, Data2Vec2AudioModel))
    options = {"add_pooling_layer": any(name.startswith("pooler.") for name in weights)} if pools else {}
    try:
        with torch.device("meta"):
            return kind(config, **options)
    except (ValueError, RuntimeError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(f"the shapes of its tensors make no {kind.__name__} ({error})") from error


def fill(model: PreTrainedModel, weights: Tensors, what: str) -> None:
    """Give an empty model its tensors, without copying them."""
    wanted = {n: t for n, t in model.state_dict().items() if n in weights or n not in model.tied}
    compare(wanted, weights, what)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()


def copy_into(module: nn.Module, weights: Tensors, what: str) -> None:
    """Copy what `module` has a place for; all of its own must be there.

    But for a pooler and a mask embedding, which not every layout keeps: those stay as they are.
    """
    own = {n: t for n, t in module.state_dict().items() if n in weights or not n.startswith(_OPTIONAL)}
    compare(own, {name: tensor for name, tensor in weights.items() if name in own}, what)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def compare(wanted: Tensors, found: Tensors, what: str) -> None:
    """Require the same names and shapes.

    Raises:
        CheckpointError: naming `what` and the first difference.
    """
    if missing := sorted(wanted.keys() - found.keys()):
        raise CheckpointError(f"{what}: {len(missing)} tensors are missing, first {missing[0]}")
    if extra := sorted(found.keys() - wanted.keys()):
        raise CheckpointError(f"{what}: {len(extra)} tensors have no place in the model, first {extra[0]}")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            shapes = f"{tuple(found[name].shape)}, its configuration needs {tuple(tensor.shape)}"
            raise CheckpointError(f"{what}: {name} has shape {shapes}")
