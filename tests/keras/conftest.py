"""TensorFlow on one thread and quiet, the cases of ``--oracle-dir``, and small models."""

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tf_cases import Case, cases_in, tf_folder

from data2vec.models.vision.config import Data2VecVisionConfig

INSTALLED = importlib.util.find_spec("tensorflow") is not None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")  # Keras' own


@cache
def case_of(folder: Path) -> Case:
    return Case(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        found = [case_of(folder) for folder in cases_in(metafunc.config.getoption("--oracle-dir"))]
        metafunc.parametrize("case", found, ids=lambda case: case.folder.name)


@pytest.fixture(scope="session")
def cases(oracle_dir: Path) -> list[Case]:
    """All of them; their models are shared with the tests of single ones."""
    return [case_of(folder) for folder in cases_in(oracle_dir)]


@pytest.fixture(scope="session")
def extra(oracle_dir: Path) -> Path:
    """What was recorded beside the cases: gradients, a training step, TensorFlow's old files."""
    folder = tf_folder(oracle_dir) / "extra"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    if INSTALLED:
        from data2vec.keras.backend import tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def tf_seeded(seeded: None) -> None:
    if INSTALLED:
        from data2vec.keras.backend import keras

        keras.utils.set_random_seed(0)


TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 4,
    "use_relative_position_bias": True,
    "num_labels": 3,
    "drop_path_rate": 0.0,
    "auxiliary_channels": 8,
    "out_indices": (0, 0, 1, 1),
    "layer_norm_eps": 1e-6,
}


@pytest.fixture
def tiny() -> Callable[..., Data2VecVisionConfig]:
    """A configuration of two small layers."""
    return lambda **changes: Data2VecVisionConfig(**{**TINY, **changes})


@pytest.fixture
def pixels() -> Callable[..., np.ndarray]:
    """Random images (B, 3, height, width)."""

    def draw(batch: int = 2, height: int = 16, width: int = 16) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((batch, 3, height, width)).astype(np.float32)

    return draw


@pytest.fixture
def lively() -> Callable[[Any], Any]:
    """Fill every weight of a TF model with what training leaves: nothing is 0 or 1 any more."""

    def fill(model: Any, spread: float = 0.1) -> Any:
        rng = np.random.default_rng(1)
        for weight in model.weights:
            noise = rng.normal(0.0, spread, weight.shape)
            if weight.name in ("gamma", "weight", "running_var"):
                weight.assign(np.abs(1.0 + noise))
            elif weight.name != "num_batches_tracked":
                weight.assign(noise)
        return model

    return fill
