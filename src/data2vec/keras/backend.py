"""Keras 3 on TensorFlow, or one clear error. The only module that imports them: `keras` and `tf` come from here."""

from __future__ import annotations

import os
import sys

from data2vec.errors import require

EXTRA = "tensorflow"


def _select_tensorflow() -> None:
    """Make TensorFlow the backend of Keras, which picks one for good when it is first imported.

    Raises:
        ImportError: TensorFlow or Keras 3 is missing, or another backend is active or asked for.
    """
    if sys.modules.get("keras") is None:
        wanted = os.environ.get("KERAS_BACKEND") or EXTRA
        if wanted != EXTRA:
            raise ImportError(f"KERAS_BACKEND is {wanted!r}: the TF classes need KERAS_BACKEND=tensorflow (or unset)")
        require("tensorflow", extra=EXTRA)
        os.environ["KERAS_BACKEND"] = EXTRA  # before ~/.keras/keras.json has a say
    loaded = require("keras", extra=EXTRA)
    if loaded.__version__.startswith("2."):
        raise ImportError(f"keras {loaded.__version__} is too old for the TF classes: pip install 'data2vec[{EXTRA}]'")
    active = loaded.config.backend()
    if active != EXTRA:
        raise ImportError(
            f"Keras already runs on {active!r} in this process, and cannot change: "
            "the TF classes need KERAS_BACKEND=tensorflow before the first `import keras`"
        )
    require("tensorflow", extra=EXTRA)


_select_tensorflow()

import keras as keras  # noqa: E402
import tensorflow as tf  # noqa: E402

__all__ = ["keras", "tf"]
