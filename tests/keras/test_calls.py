"""Forms of a call, the output, training switches, and what a wrong input is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tf_cases import worst

pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")

from data2vec import (
    BeitImageProcessor,
    TFData2VecVisionForImageClassification,
    TFData2VecVisionForSemanticSegmentation,
    TFData2VecVisionModel,
)
from data2vec.errors import UserError
from data2vec.keras.backend import keras, tf
from data2vec.keras.layers import DropPath
from data2vec.keras.outputs import TFModelOutput
from data2vec.models.vision.config import Data2VecVisionConfig

Config = Callable[..., Data2VecVisionConfig]
Pixels = Callable[..., np.ndarray]


# ---- forms of a call


def test_every_form_of_a_call_gives_the_same(tiny: Config, pixels: Pixels) -> None:
    model, x, y = TFData2VecVisionForImageClassification(tiny()), pixels(), np.array([0, 2])
    logits = model(x).logits.numpy()
    for outputs in (
        model([x]),
        model((x,)),
        model({"pixel_values": x}),
        model({"pixel_values": x, "labels": y}),
        model(pixel_values=x),
        model(tf.constant(x), None, True, True, None, y, False),
        model([x, np.ones(2, np.float32)], labels=y),
        model(BeitImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False)(list(x))),
        tf.function(model)(x),
        tf.function(model, jit_compile=True)(x),
        model.predict(x, verbose=0),
        model.predict({"pixel_values": x}, verbose=0),
    ):
        assert worst(outputs["logits"], logits) < 1e-6
        assert outputs.logits is outputs["logits"]


def test_output_reads_by_name_attribute_and_place(tiny: Config, pixels: Pixels) -> None:
    model, y = TFData2VecVisionForImageClassification(tiny()), np.array([0, 2])
    outputs = model(pixels(), labels=y, output_hidden_states=True)
    assert list(outputs) == ["loss", "logits", "hidden_states"]
    assert outputs[0] is outputs.loss
    assert outputs[:2] == (outputs["loss"], outputs["logits"])
    assert outputs.to_tuple()[-1] is outputs.hidden_states
    assert len(outputs.hidden_states) == 3
    assert outputs.attentions is None
    with pytest.raises(KeyError):
        outputs["attentions"]
    with pytest.raises(AttributeError, match="scores"):
        outputs.scores  # noqa: B018
    loss, logits, states = model(pixels(), labels=y, output_hidden_states=True, return_dict=False)
    for found, wanted in zip((loss, logits, *states), (outputs[0], outputs[1], *outputs[2]), strict=True):
        assert worst(found, wanted) == 0.0


def test_tuples_of_the_base_model_and_of_the_segmenter(tiny: Config, pixels: Pixels) -> None:
    """Logits come channels-first either way (the original's tuple had them channels-last)."""
    base = TFData2VecVisionModel(tiny(return_dict=False), add_pooling_layer=True)
    last, pooled, attentions = base(pixels(), output_attentions=True)
    assert (last.shape, pooled.shape, attentions[1].shape) == ((2, 17, 16), (2, 16), (2, 2, 17, 17))
    segmenter = TFData2VecVisionForSemanticSegmentation(tiny())
    loss, logits = segmenter(pixels(), labels=np.zeros((2, 16, 16), int), return_dict=False)
    assert (loss.shape, logits.shape) == ((1,), (2, 3, 16, 16))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [TFData2VecVisionForImageClassification, TFData2VecVisionForSemanticSegmentation])
def test_graphs_and_xla_compute_the_same(kind: Any, tiny: Config, pixels: Pixels, lively: Callable[[Any], Any]) -> None:
    model, x = lively(kind(tiny())), pixels()
    for compiled in (False, True):
        call = tf.function(lambda pixels: model(pixels).logits, jit_compile=compiled)
        assert worst(call(x), model(x).logits) < 1e-5


def test_functional_models(tiny: Config, pixels: Pixels) -> None:
    model, x = TFData2VecVisionForImageClassification(tiny()), pixels()
    inputs = keras.Input((3, 16, 16))
    whole = keras.Model(inputs, keras.layers.Dense(2)(model(inputs)["logits"]))
    dense = whole.layers[-1]
    assert worst(whole.predict(x, verbose=0), dense(model(x).logits)) < 1e-6
    model = TFData2VecVisionModel(tiny())  # another one: Keras 3.15 forgets a layer's options when it is called twice
    every = keras.Model(inputs, model(inputs, output_hidden_states=True))(x)
    assert worst(every["hidden_states"][-1], model(x).last_hidden_state) < 1e-6


def test_keras_own_files(tiny: Config, pixels: Pixels, tmp_path: Path) -> None:
    for model in (
        TFData2VecVisionModel(tiny(use_mask_token=True), add_pooling_layer=True),
        TFData2VecVisionForSemanticSegmentation(tiny()),
    ):
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert type(again) is type(model)
        assert again.config == model.config
        assert worst(again(pixels())[0], model(pixels())[0]) == 0.0


def test_unknown_height_and_width_are_the_configured_ones(tiny: Config, pixels: Pixels) -> None:
    model = TFData2VecVisionForSemanticSegmentation(tiny())
    call = tf.function(lambda x: model(x).logits, input_signature=[tf.TensorSpec((None, 3, None, None))])
    assert worst(call(pixels(3)), model(pixels(3)).logits) < 1e-6
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected"):
        call(pixels(1, 20, 20))


def test_an_output_survives_the_trees_of_keras_and_tensorflow() -> None:
    output = TFModelOutput(logits=np.ones(2), hidden_states=(np.zeros(1), np.ones(1)))
    for tree in (keras.tree, tf.nest):
        doubled = tree.map_structure(lambda leaf: leaf * 2, output)
        assert isinstance(doubled, TFModelOutput)
        assert list(doubled) == list(output)
        assert doubled.hidden_states[1] == 2


# ---- training switches


def test_dropout_acts_in_training_only(tiny: Config, pixels: Pixels) -> None:
    for rate in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"):
        model, x = TFData2VecVisionForImageClassification(tiny(**{rate: 0.5})), pixels()
        assert np.array_equal(model(x).logits, model(x).logits)
        assert not np.array_equal(model(x, training=True).logits, model(x, training=True).logits)


def test_drop_path_keeps_the_mean() -> None:
    """10 000 samples, within three standard deviations; a sample is kept or skipped as a whole."""
    rate, count = 0.3, 10_000
    out = DropPath(rate)(tf.ones((count, 2, 2)), training=True).numpy()
    assert set(np.unique(out.round(4))) == {0.0, np.float32(1 / (1 - rate)).round(4)}
    assert (out == out[:, :1, :1]).all()
    assert abs(out.mean() - 1) < 3 * np.sqrt(rate / (1 - rate) / count)
    assert np.array_equal(DropPath(rate)(tf.ones((2, 2, 2))), np.ones((2, 2, 2)))


# ---- what a wrong input is told


def refused(message: str) -> Any:
    return pytest.raises(UserError, match=message)


def test_wrong_pixels(tiny: Config, pixels: Pixels) -> None:
    model = TFData2VecVisionForImageClassification(tiny())
    channels_last = pixels().transpose(0, 2, 3, 1)
    with refused(r"must be \(batch, 3, height, width\).*channels-last"):
        model(channels_last)
    with refused(r"not of shape \(3, 16, 16\)"):
        model(pixels()[0])
    with refused(r"must be \(batch, 3, height, width\)"):
        model(np.zeros((2, 4, 16, 16), np.float32))
    with refused("3x16 is smaller than a patch"):
        model(pixels(1, 3, 16))
    with refused("needs pixel_values"):
        model({"labels": np.array([1])})
    with refused("no input 'pixels'"):
        model({"pixels": pixels()})
    with refused("labels twice"):
        model({"pixel_values": pixels(), "labels": np.array([1, 1])}, labels=np.array([1, 1]))
    with refused("takes 8 inputs"):
        model([pixels()] * 9)
    with refused("channels-last"):
        tf.function(lambda x: model(x).logits)(channels_last)  # in a graph too


def test_wrong_sizes_where_positions_are_absolute(tiny: Config, pixels: Pixels) -> None:
    model = TFData2VecVisionForSemanticSegmentation(tiny(use_absolute_position_embeddings=True))
    with refused("interpolate_pos_encoding=True"):
        model(pixels(1, 20, 16))
    with refused("interpolate_pos_encoding=True"):
        tf.function(lambda x: model(x).logits)(pixels(1, 20, 16))
    assert model(pixels(1, 20, 16), interpolate_pos_encoding=True).logits.shape == (1, 3, 20, 16)


def test_wrong_masks(tiny: Config, pixels: Pixels) -> None:
    plain, masked = TFData2VecVisionModel(tiny()), TFData2VecVisionModel(tiny(use_mask_token=True))
    with refused("use_mask_token=True"):
        plain(pixels(), bool_masked_pos=np.zeros((2, 16), bool))
    for shape in ((2, 15), (2, 5, 5), (16,)):
        with refused(r"bool_masked_pos has shape"):
            masked(pixels(), bool_masked_pos=np.zeros(shape, bool))
    with refused(r"head_mask must be \(2,\) or \(2, 2\), not \(3,\)"):
        plain(pixels(), head_mask=np.ones(3, np.float32))


def test_wrong_labels(tiny: Config, pixels: Pixels) -> None:
    classifier = TFData2VecVisionForImageClassification(tiny())
    segmenter = TFData2VecVisionForSemanticSegmentation(tiny(semantic_loss_ignore_index=-1))
    for wrong in (3, -1):
        with refused(rf"labels must be within 0 \.\.\. 2;.*{wrong}"):
            classifier(pixels(), labels=np.array([0, wrong]))
    with refused(r"0 \.\.\. 2, or -1 to be left out.*-2, -2"):
        segmenter(pixels(), labels=np.full((2, 16, 16), -2))
    with refused(r"\(batch, height, width\)"):
        segmenter(pixels(), labels=np.zeros((2, 16, 16, 1), int))
    with refused(r"one class number a sample"):
        classifier(pixels(), labels=np.zeros((2, 3), int))
    with refused(r"regression needs \(batch, 3\)"):
        TFData2VecVisionForImageClassification(tiny(problem_type="regression"))(pixels(), labels=np.zeros(2))
    with refused("two classes or more"):
        TFData2VecVisionForSemanticSegmentation(tiny(num_labels=1))(pixels(), labels=np.zeros((2, 16, 16), int))
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be within 0"):
        tf.function(lambda y: classifier(pixels(), labels=y).loss)(tf.constant([0, 7]))  # and in a graph


def test_wrong_configurations(tiny: Config) -> None:
    with refused("out_indices .* names a block that is not there"):
        TFData2VecVisionForSemanticSegmentation(tiny(out_indices=(0, 1, 2, 3)))
    with refused("reads four blocks"):
        TFData2VecVisionForSemanticSegmentation(tiny(out_indices=(0, 1)))
    with refused("hidden_act 'gloo' is unknown"):
        TFData2VecVisionModel(tiny(hidden_act="gloo"))
    with refused("head_mask"):
        TFData2VecVisionModel(tiny(pruned_heads={0: [1]}))
    with refused("needs a Data2VecVisionConfig"):
        TFData2VecVisionModel({"hidden_size": 16})
    callable_activation = TFData2VecVisionModel(tiny(hidden_act=keras.activations.relu))
    assert callable_activation.encoder.blocks[0].mlp.activation is keras.activations.relu


def test_wrong_files(tiny: Config, tmp_path: Path) -> None:
    kind = TFData2VecVisionForImageClassification
    with refused("no folder"):
        kind.from_pretrained("./nowhere")
    tiny().save_pretrained(tmp_path)
    with refused("none of model.safetensors"):
        kind.from_pretrained(tmp_path)
    (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    with refused("cut short or no HDF5"):
        kind.from_pretrained(tmp_path)
    kind(tiny()).save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-10])
    with refused("cut short"):
        kind.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    with refused("mixed_bfloat16"):
        kind.from_pretrained(tmp_path, dtype="bfloat16")
    with refused("has no field depth"):
        kind.from_pretrained(tmp_path, depth=3)
    with refused(r"classifier.weight has shape \(3, 16\).*\(5, 16\).*ignore_mismatched_sizes"):
        kind.from_pretrained(tmp_path, num_labels=5)
    model, report = kind.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True, from_pt=True
    )
    assert [name for name, _, _ in report.mismatched] == ["classifier.weight", "classifier.bias"]
    assert model.classifier.units == 5
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "model_type": "beit"}))
    with refused("model_type is 'beit'"):
        kind.from_pretrained(tmp_path)
    with refused("is a file"):
        model.save_pretrained(tmp_path / "model.safetensors")


def test_a_head_on_a_base_checkpoint_is_reported(
    tiny: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TFData2VecVisionModel(tiny()).save_pretrained(tmp_path)
    kind = TFData2VecVisionForImageClassification
    _, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    lost = ["data2vec_vision.pooler.layernorm.weight", "data2vec_vision.pooler.layernorm.bias"]
    assert report.missing == [*lost, "classifier.weight", "classifier.bias"]
    assert "newly initialised (train before use)" in caplog.text
