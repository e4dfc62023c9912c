"""Models for use without this library: SavedModel with each weight once, LiteRT with built-in operators."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data2vec.errors import UserError
from data2vec.keras.backend import tf


class _Portable(tf.Module):
    """Pixels -> outputs, and the model's variables. Keras' own export stores each variable twice (keras #23553)."""

    def __init__(self, model: Any, image_size: tuple[int, int] | None) -> None:
        super().__init__()
        config = model.config
        shape = (None, config.num_channels, *(image_size or config.image_shape))
        self.weights = [variable.value for variable in model.variables]

        def serve(pixel_values: Any) -> dict[str, Any]:
            outputs = model(pixel_values, training=False, output_attentions=False, output_hidden_states=False)
            return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

        self.serve = tf.function(serve, input_signature=[tf.TensorSpec(shape, tf.float32, name="pixel_values")])


def saved_model(model: Any, folder: Path, image_size: tuple[int, int] | None = None) -> Path:
    """Write a SavedModel, signature ``serving_default``: pixel_values (B, channels, height, width) -> outputs by name.

    Args:
        model: one of the TF classes.
        folder: created when missing.
        image_size: (height, width); the configuration's by default.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; a SavedModel needs a folder")
    portable = _Portable(model, image_size)
    tf.saved_model.save(portable, os.fspath(folder), signatures={"serving_default": portable.serve})
    return folder


def litert(model: Any, file: Path, image_size: tuple[int, int] | None = None, *, int8: bool = False) -> Path:
    """Write a LiteRT (formerly TensorFlow Lite) file with built-in operators only and a free batch size.

    Args:
        model: one of the TF classes.
        file: written whole or not at all.
        image_size: (height, width); the configuration's by default.
        int8: store weights as 8-bit integers (dynamic range quantisation).
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder; a LiteRT export needs a file name, such as model.tflite")
    portable = _Portable(model, image_size)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([portable.serve.get_concrete_function()], portable)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content = converter.convert()
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        os.replace(beside, file)
    except OSError as error:
        raise UserError(f"{file} could not be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return file
