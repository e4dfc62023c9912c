"""`fit`, `evaluate` and `predict`: every form of labels, eager, traced and compiled by XLA, in mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tf_cases import worst

pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")

import data2vec
from data2vec import (
    TFData2VecVisionForImageClassification,
    TFData2VecVisionForSemanticSegmentation,
    TFData2VecVisionModel,
)
from data2vec.errors import UserError
from data2vec.keras.backend import keras, tf
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.training.optim import Adam

Config = Callable[..., Data2VecVisionConfig]
Pixels = Callable[..., np.ndarray]
Model = Callable[..., Any]
LABELS = np.array([0, 1, 2, 1, 0, 2])
OPTIONS = {"batch_size": 3, "epochs": 2, "shuffle": False, "verbose": 0}

pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist", "ignore:`shuffle=True` was passed")


@pytest.fixture
def classifier(tiny: Config, lively: Callable[[Any], Any]) -> Model:
    """The same classifier each time, compiled as asked; without a loss it uses its own."""

    def make(**compiled: Any) -> Any:
        model = lively(TFData2VecVisionForImageClassification(tiny(num_hidden_layers=1)))
        model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "run_eagerly": True, **compiled})
        return model

    return make


def losses(model: Any, *data: Any, **options: Any) -> list[float]:
    history: list[float] = model.fit(*data, **{**OPTIONS, **options}).history["loss"]
    return history


def test_every_form_of_labels_trains_alike(classifier: Model, pixels: Pixels) -> None:
    x, y = pixels(6), LABELS
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    own = losses(classifier(), {"pixel_values": x, "labels": y})
    assert own[1] < own[0]
    wholes = tf.data.Dataset.from_tensor_slices({"pixel_values": x, "labels": y}).batch(3)
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    for found in (
        losses(classifier(), x, y),
        losses(classifier(), wholes, batch_size=None),
        losses(classifier(), pairs, batch_size=None),
        losses(classifier(loss=loss), x, y),
        losses(classifier(loss={"logits": loss}), x, {"logits": y}),
        losses(classifier(loss=loss), {"pixel_values": x}, y, sample_weight=np.ones(6)),
    ):
        assert found == pytest.approx(own, abs=1e-5)


def test_eager_traced_and_compiled_training_agree(classifier: Model, pixels: Pixels) -> None:
    data = {"pixel_values": pixels(6), "labels": LABELS}
    eager = losses(classifier(), data)
    assert losses(classifier(run_eagerly=False, jit_compile=False), data) == pytest.approx(eager, abs=1e-5)
    assert losses(classifier(run_eagerly=False, jit_compile=True), data) == pytest.approx(eager, abs=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_training_equals_that_of_the_pytorch_class(name: str, classifier: Model, pixels: Pixels, tmp_path: Any) -> None:
    """Four steps from the same weights on the same batches; Keras' Adam adds its epsilon where fairseq's does."""
    adam = {"optimizer": keras.optimizers.Adam(1e-3, beta_2=0.98, epsilon=1e-6)}
    model, x = classifier(**(adam if name == "adam" else {})), pixels(6)
    model.save_pretrained(tmp_path)
    theirs = data2vec.Data2VecVisionForImageClassification.from_pretrained(tmp_path).train()
    optimizer = Adam(theirs.parameters(), 1e-3) if name == "adam" else torch.optim.SGD(theirs.parameters(), 0.1)
    found, wanted = losses(model, x, LABELS), []
    for _ in range(2):
        steps = []
        for rows in (slice(0, 3), slice(3, 6)):
            optimizer.zero_grad()
            loss = theirs(torch.as_tensor(x[rows]), labels=torch.as_tensor(LABELS[rows])).loss
            loss.backward()
            optimizer.step()
            steps.append(loss.item())
        wanted.append(sum(steps) / 2)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert found[1] < found[0]


def test_metrics_evaluate_and_predict(classifier: Model, pixels: Pixels) -> None:
    x, y = pixels(6), LABELS
    logits = classifier()(x).logits.numpy()
    accuracy, loss = (logits.argmax(-1) == y).mean(), classifier()(x, labels=y).loss.numpy().mean()
    compiled = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for model, data in (
        (classifier(metrics=["accuracy"]), ({"pixel_values": x, "labels": y},)),
        (classifier(metrics=["accuracy"]), (x, y)),
        (classifier(loss=compiled, metrics=["accuracy"]), (x, y)),
    ):
        found = model.evaluate(*data, batch_size=4, verbose=0, return_dict=True)
        assert found["accuracy"] == pytest.approx(accuracy)
        assert found["loss"] == pytest.approx(loss, abs=1e-5)
    predicted = model.predict(x, batch_size=4, verbose=0)
    assert worst(predicted.logits, logits) < 1e-5
    assert worst(model.predict_on_batch(x).logits, logits) < 1e-5


def test_segmentation_and_base_models_train(tiny: Config, pixels: Pixels) -> None:
    x, y = pixels(4), np.random.default_rng(0).integers(0, 3, (4, 16, 16))
    segmenter = TFData2VecVisionForSemanticSegmentation(tiny())
    segmenter.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    found = losses(segmenter, {"pixel_values": x, "labels": y}, batch_size=4, epochs=3)
    assert found[2] < found[0]
    base = TFData2VecVisionModel(tiny())
    base.compile(optimizer="adam", loss="mse", run_eagerly=True)
    found = losses(base, x, np.zeros((4, 17, 16), np.float32))
    assert found[1] < found[0]


def test_training_without_labels_is_an_error(classifier: Model, pixels: Pixels) -> None:
    with pytest.raises(UserError, match="training needs labels"):
        classifier().fit(pixels(), **OPTIONS)
    with pytest.raises(UserError, match="need a loss in compile"):
        classifier().fit(pixels(), LABELS[:2], sample_weight=np.ones(2), **OPTIONS)
    with pytest.raises(UserError, match="targets name 'scores'; the model returns logits"):
        classifier(loss={"scores": "mse"}).fit(pixels(), {"scores": LABELS[:2]}, **OPTIONS)


@pytest.fixture
def policy() -> Iterator[Callable[[str], None]]:
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(("name", "tolerance"), [("mixed_bfloat16", 0.15), ("mixed_float16", 0.02)])
def test_mixed_precision(
    name: str,
    tolerance: float,
    tiny: Config,
    pixels: Pixels,
    lively: Callable[[Any], Any],
    policy: Callable[[str], None],
) -> None:
    """Computed in half precision with fp32 weights: close to fp32, and trains with finite losses."""
    for kind, labels in (
        (TFData2VecVisionForImageClassification, LABELS[:4]),
        (TFData2VecVisionForSemanticSegmentation, np.zeros((4, 16, 16), int)),
    ):
        config = tiny(
            layer_norm_eps=1e-12, use_absolute_position_embeddings=True, use_shared_relative_position_bias=True
        )
        exact = lively(kind(config))(pixels(4)).logits
        policy(name)
        model = lively(kind(config))
        policy("float32")
        logits = model(pixels(4)).logits
        assert logits.dtype == name.removeprefix("mixed_")
        assert {weight.dtype for weight in model.weights} <= {"float32", "int64"}
        assert worst(tf.cast(logits, tf.float32), exact) < tolerance * float(tf.reduce_max(tf.abs(exact)))
        model.compile(optimizer="sgd", run_eagerly=True)
        assert np.isfinite(losses(model, pixels(4), labels, batch_size=4)).all()
