"""The TF classes against our PyTorch classes: every option of the graph, other sizes, losses, files both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tf_cases import as_array, flat, gradients, worst

pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")

import data2vec
from data2vec import (
    TFData2VecVisionForImageClassification,
    TFData2VecVisionForSemanticSegmentation,
    TFData2VecVisionModel,
)
from data2vec.keras.backend import tf
from data2vec.models.vision.config import Data2VecVisionConfig

Config = Callable[..., Data2VecVisionConfig]
Pixels = Callable[..., np.ndarray]
KINDS = ["Data2VecVisionModel", "Data2VecVisionForImageClassification", "Data2VecVisionForSemanticSegmentation"]


@pytest.fixture
def twins(lively: Callable[[Any], Any], tmp_path: Path) -> Callable[..., tuple[Any, Any]]:
    """A TF model with trained-like weights and the PyTorch model that its files give."""

    def make(kind: str, config: Data2VecVisionConfig) -> tuple[Any, Any]:
        ours = lively(getattr(data2vec, f"TF{kind}")(config))
        ours.save_pretrained(tmp_path)
        theirs, report = getattr(data2vec, kind).from_pretrained(tmp_path, output_loading_info=True)
        assert not (report.missing or report.unexpected or report.mismatched)
        return ours, theirs

    return make


def compare(ours: Any, theirs: Any, pixels: np.ndarray, tolerance: float = 1e-5, **inputs: Any) -> None:
    """Every output, the loss as PyTorch reduces it."""
    tensors = {
        name: torch.as_tensor(value) if isinstance(value, np.ndarray) else value for name, value in inputs.items()
    }
    asked = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        wanted = flat(theirs(torch.as_tensor(pixels), **asked, **tensors))
    found = flat(ours(pixels, **asked, **inputs))
    assert set(found) == set(wanted)
    for name, array in found.items():
        array = array.mean() if name == "loss" else array
        assert worst(array, wanted[name]) < tolerance, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"use_shared_relative_position_bias": True, "use_mean_pooling": False, "hidden_act": "gelu_new"},
        {"use_relative_position_bias": False, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0},
        {"image_size": (24, 16), "patch_size": (6, 4), "use_absolute_position_embeddings": True, "hidden_act": "silu"},
        {"image_size": (8, 32), "use_absolute_position_embeddings": True, "compat": "transformers"},
    ],
    ids=["shared", "absolute", "tuples", "compat"],
)
def test_options_at_a_size_of_another_shape(
    kind: str, options: dict[str, Any], tiny: Config, pixels: Pixels, twins: Callable[..., tuple[Any, Any]]
) -> None:
    if options.get("compat"):
        options = {**options, "out_indices": (0, 1, 2, 3), "num_hidden_layers": 4}
        if kind.endswith("Segmentation"):
            options["out_indices"] = (1, 2, 3, 4)
    ours, theirs = twins(kind, tiny(**options))
    compare(ours, theirs, pixels(2, *ours.config.image_shape))
    compare(ours, theirs, pixels(1, 20, 28), interpolate_pos_encoding=True)


def test_pixels_beyond_whole_patches(tiny: Config, pixels: Pixels, twins: Callable[..., tuple[Any, Any]]) -> None:
    """Cut off by the classifier, filled up by the segmenter, as in PyTorch; labels as large as the image."""
    compare(*twins(KINDS[1], tiny()), pixels(2, 17, 23), labels=np.array([2, 0]))
    ours, theirs = twins(KINDS[2], tiny(semantic_loss_ignore_index=1))
    rng = np.random.default_rng(0)
    for size in ((17, 23), (16, 16), (9, 40)):  # the image's, and two others
        compare(ours, theirs, pixels(2, 17, 23), labels=rng.integers(0, 3, (2, *size)))
    compare(ours, theirs, pixels(2), labels=np.ones((2, 16, 16), np.int64))  # no label counts


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"num_labels": 1}, np.array([0.3, -2.0], np.float32)),
        ({"problem_type": "regression"}, np.array([[1, 2, 3], [0, 0.5, -1]], np.float32)),
        ({"problem_type": "multi_label_classification"}, np.array([[1, 0, 1], [0, 0, 1]])),
        ({}, np.array([[1, 0, 1], [0, 0, 1]], np.float32)),
        ({}, np.array([[2], [0]])),
        ({"problem_type": "single_label_classification"}, np.array([2.0, 0.0], np.float32)),
    ],
)
def test_classification_losses(
    options: dict[str, Any], labels: np.ndarray, tiny: Config, pixels: Pixels, twins: Callable[..., tuple[Any, Any]]
) -> None:
    ours, theirs = twins(KINDS[1], tiny(**options))
    compare(ours, theirs, pixels(), labels=labels)
    assert ours(pixels(), labels=labels).loss.shape == (2,)


@pytest.mark.parametrize(
    "options",
    [
        {"auxiliary_concat_input": True, "auxiliary_num_convs": 2, "pool_scales": (1, 2, 3, 6)},
        {"auxiliary_concat_input": True, "auxiliary_num_convs": 0, "pool_scales": (3,)},
        {"auxiliary_num_convs": 0},
        {"use_auxiliary_head": False, "out_indices": (1, 0, 1, 0)},
    ],
)
def test_segmentation_heads(
    options: dict[str, Any], tiny: Config, pixels: Pixels, twins: Callable[..., tuple[Any, Any]]
) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (2, 16, 16))
    labels[:, :3] = 255
    compare(*twins(KINDS[2], tiny(**options)), pixels(), labels=labels)


def test_masked_patches_and_heads(tiny: Config, pixels: Pixels, twins: Callable[..., tuple[Any, Any]]) -> None:
    ours, theirs = twins(KINDS[0], tiny(use_mask_token=True))
    mask = np.random.default_rng(0).random((2, 16)) < 0.4
    compare(ours, theirs, pixels(), bool_masked_pos=mask)
    compare(ours, theirs, pixels(), bool_masked_pos=mask.reshape(2, 4, 4))
    compare(ours, theirs, pixels(), head_mask=np.array([0.0, 1.0], np.float32))
    compare(ours, theirs, pixels(), head_mask=np.array([[0.0, 1.0], [0.5, 2.0]], np.float32))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_gradients_of_a_training_step(
    kind: str, tiny: Config, pixels: Pixels, twins: Callable[..., tuple[Any, Any]]
) -> None:
    """And the running statistics after it; one image, pooled to one cell, has no variance and does not break them."""
    ours, theirs = twins(kind, tiny())
    shape = (16, 20) if kind.endswith("Segmentation") else ()
    for batch in (3, 1):
        labels = np.random.default_rng(0).integers(0, 3, (batch, *shape))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(ours(pixels(batch, 16, 20), labels=labels, training=True).loss)
        theirs.train().zero_grad()
        theirs(torch.as_tensor(pixels(batch, 16, 20)), labels=torch.as_tensor(labels)).loss.backward()
        found = gradients(ours, loss, tape)
        wanted = {name: as_array(p.grad) for name, p in theirs.named_parameters() if p.grad is not None}
        assert set(found) == set(wanted)
        for name, gradient in found.items():
            assert worst(gradient, wanted[name]) <= 1e-6 + 1e-4 * np.abs(wanted[name]).max(), name
    statistics = {name: as_array(value) for name, value in theirs.named_buffers() if "running" in name}
    from data2vec.keras.weights import slots

    for name, statistic in statistics.items():
        assert worst(slots(ours)[name].read(), statistic) < 1e-6, name


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_the_pytorch_class_come_back_as_they_were(kind: str, tiny: Config, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = getattr(data2vec, kind)(tiny(use_mask_token=True))
    for tensor in theirs.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else torch.tensor(17))
    theirs.save_pretrained(tmp_path / "torch")
    ours = getattr(data2vec, f"TF{kind}").from_pretrained(tmp_path / "torch")
    ours.save_pretrained(tmp_path / "tf")
    again = getattr(data2vec, kind).from_pretrained(tmp_path / "tf")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    assert set(again.state_dict()) == set(theirs.state_dict())
    assert again.config.feature_blocks == theirs.config.feature_blocks == ours.config.feature_blocks
    assert (tmp_path / "tf/config.json").read_text() == (tmp_path / "torch/config.json").read_text()


def test_shards_and_half_precision_are_read(tiny: Config, pixels: Pixels, tmp_path: Path) -> None:
    theirs = data2vec.Data2VecVisionForImageClassification(tiny()).to(torch.bfloat16).eval()
    theirs.save_pretrained(tmp_path, max_shard_size=2000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    ours = TFData2VecVisionForImageClassification.from_pretrained(tmp_path)
    assert worst(ours(pixels()).logits, theirs.float()(torch.as_tensor(pixels())).logits) < 1e-5


def test_new_models_start_like_those_of_pytorch(tiny: Config) -> None:
    """Same constants, same spreads: nothing is left unset."""
    from data2vec.keras.weights import slots

    config = tiny(hidden_size=64, use_mask_token=True, use_absolute_position_embeddings=True)
    ours = slots(TFData2VecVisionForSemanticSegmentation(config))
    theirs = data2vec.Data2VecVisionForSemanticSegmentation(config).state_dict()
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        mine = ours[name].read()
        if tensor.numel() > 1000 and tensor.is_floating_point():
            assert abs(float(mine.mean() - tensor.mean())) < 0.004, name
            assert abs(float(mine.std() - tensor.std())) < 0.002, name
        elif not tensor.is_floating_point() or float(tensor.std(correction=0)) == 0:
            assert torch.equal(mine, tensor), name


@pytest.mark.heavy
def test_base_size(lively: Callable[[Any], Any], tmp_path: Path) -> None:
    """86 million parameters at 224x224, eagerly and compiled by XLA; and at 160x240."""
    config = Data2VecVisionConfig(use_relative_position_bias=True, num_labels=1000, drop_path_rate=0.0)
    ours = TFData2VecVisionForImageClassification(config)
    rng = np.random.default_rng(0)
    for weight in ours.weights:
        weight.assign(
            weight + rng.standard_normal(weight.shape, dtype=np.float32) * (0.02 if len(weight.shape) < 2 else 0)
        )
    ours.save_pretrained(tmp_path)
    theirs = data2vec.Data2VecVisionForImageClassification.from_pretrained(tmp_path)
    compiled = tf.function(lambda x: ours(x, output_hidden_states=True), jit_compile=True)
    for shape, calls in (((2, 3, 224, 224), (ours, compiled)), ((1, 3, 160, 240), (ours,))):
        x = rng.standard_normal(shape, dtype=np.float32)
        with torch.no_grad():
            wanted = theirs(torch.as_tensor(x), output_hidden_states=True)
        for call in calls:
            found = call(x) if call is compiled else call(x, output_hidden_states=True)
            assert worst(found.logits, wanted.logits) < 2e-5
            assert worst(found.hidden_states[-1], wanted.hidden_states[-1]) < 5e-5


def test_base_class_names_its_pooler(tiny: Config, pixels: Pixels) -> None:
    assert TFData2VecVisionModel(tiny())(pixels()).pooler_output is None
    assert TFData2VecVisionModel(tiny(), add_pooling_layer=True)(pixels()).pooler_output.shape == (2, 16)
