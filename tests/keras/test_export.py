"""Exports run without this library: SavedModel in a fresh process, LiteRT in its own interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tf_cases import worst

pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")

from data2vec import (
    TFData2VecVisionForImageClassification,
    TFData2VecVisionForSemanticSegmentation,
    TFData2VecVisionModel,
)
from data2vec.errors import UserError
from data2vec.models.vision.config import Data2VecVisionConfig

Config = Callable[..., Data2VecVisionConfig]
Pixels = Callable[..., np.ndarray]
Lively = Callable[[Any], Any]
HEADS = [TFData2VecVisionForImageClassification, TFData2VecVisionForSemanticSegmentation]

RELOAD = """
import sys
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
assert not {"data2vec", "torch"} & set(sys.modules), "the export needs the library that wrote it"
x = np.load(sys.argv[2])
serve = loaded.signatures["serving_default"]
found = {}
for batch in (1, 2, 5):
    found.update({f"{name}.{batch}": value.numpy() for name, value in serve(tf.constant(x[:batch])).items()})
np.savez(sys.argv[3], **found)
"""


@pytest.mark.heavy
def test_saved_model_in_a_fresh_process(tiny: Config, pixels: Pixels, lively: Lively, tmp_path: Path) -> None:
    """Any batch size; every weight stored once."""
    config = tiny(hidden_size=128, intermediate_size=512, image_size=(16, 24))
    model = lively(TFData2VecVisionModel(config, add_pooling_layer=True))
    assert model.export(tmp_path / "exported") == tmp_path / "exported"
    stored = sum(file.stat().st_size for file in (tmp_path / "exported" / "variables").glob("variables.data*"))
    assert stored <= 1.05 * 4 * sum(int(np.prod(weight.shape)) for weight in model.weights)
    x = pixels(5, 16, 24)
    np.save(tmp_path / "x.npy", x)
    arguments = [str(tmp_path / name) for name in ("exported", "x.npy", "found.npz")]
    done = subprocess.run([sys.executable, "-c", RELOAD, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "found.npz")
    for batch in (1, 2, 5):
        outputs = model(x[:batch])
        assert set(outputs) == {"last_hidden_state", "pooler_output"}
        for name, value in outputs.items():
            assert worst(found[f"{name}.{batch}"], value) < 1e-5


@pytest.mark.heavy
@pytest.mark.parametrize("kind", HEADS)
def test_litert(kind: Any, tiny: Config, pixels: Pixels, lively: Lively, tmp_path: Path) -> None:
    """Built-in operators only (its interpreter here knows no others), any batch size, and in 8 bits."""
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    model = lively(kind(tiny(hidden_size=32, intermediate_size=64)), 0.05)  # below 1024 numbers nothing is rounded
    x = pixels(2)
    wanted = model(x).logits
    exact = model.export(tmp_path / "model.tflite", format="litert")
    for batch in (1, 2):
        assert worst(interpret(exact, x[:batch]), wanted[:batch]) < 1e-5
    rounded = model.export(tmp_path / "model8.tflite", format="litert", int8=True)
    assert rounded.stat().st_size < exact.stat().st_size
    for batch in (1, 2):
        assert worst(interpret(rounded, x[:batch]), wanted[:batch]) <= 0.1


def interpret(file: Path, x: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, x)
    interpreter.invoke()
    found: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


def test_saved_model_beside_the_weights(tiny: Config, pixels: Pixels, tmp_path: Path) -> None:
    """As `save_pretrained` of the originals could: ``saved_model/1``. Here at another image size, too."""
    from data2vec.keras.backend import tf

    TFData2VecVisionModel(tiny(num_hidden_layers=1)).save_pretrained(tmp_path, saved_model=True)
    assert (tmp_path / "saved_model" / "1" / "saved_model.pb").is_file()
    model, x = TFData2VecVisionForSemanticSegmentation(tiny(pool_scales=(2,))), pixels(1, 24, 16)
    model.export(tmp_path / "wide", image_size=(24, 16))
    found = tf.saved_model.load(tmp_path / "wide").signatures["serving_default"](tf.constant(x))
    assert worst(found["logits"], model(x).logits) < 1e-5


def test_wrong_targets(tiny: Config, tmp_path: Path) -> None:
    model = TFData2VecVisionModel(tiny())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="export format 'onnx'"):
        model.export(tmp_path / "model", format="onnx")
    with pytest.raises(UserError, match="int8"):
        model.export(tmp_path / "model", int8=True)
    with pytest.raises(UserError, match="is a file; a SavedModel needs a folder"):
        model.export(tmp_path / "file")
    with pytest.raises(UserError, match="needs a file name"):
        model.export(tmp_path, format="litert")
