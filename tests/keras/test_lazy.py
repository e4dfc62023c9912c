"""TensorFlow stays away until a TF class is named; without it, or with another backend, one clear error."""

import importlib.util
import os
import subprocess
import sys

import pytest

INSTALLED = importlib.util.find_spec("tensorflow") is not None
NAME = "TFData2VecVisionModel"


def run(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip()


def test_importing_data2vec_leaves_tensorflow_unloaded() -> None:
    code = f"""
import sys
import data2vec, data2vec.keras
assert {NAME!r} in dir(data2vec) and {NAME!r} in data2vec.__all__
data2vec.Data2VecVisionModel
print({{"tensorflow", "keras"}} & set(sys.modules))
"""
    assert run(code) == "set()"


@pytest.mark.parametrize("missing", ["tensorflow", "keras"])
def test_without_the_package_the_error_names_the_extra(missing: str) -> None:
    if missing == "keras" and not INSTALLED:
        pytest.skip("needs tensorflow, to miss keras")
    code = f"""
import sys
sys.modules[{missing!r}] = None  # importing it now fails as if it were not there
import data2vec
try:
    data2vec.{NAME}
except ImportError as error:
    print(error)
"""
    assert "pip install 'data2vec[tensorflow]'" in run(code)


def test_another_backend_asked_for_is_an_error() -> None:
    code = f"""
import sys
import data2vec
try:
    data2vec.{NAME}
except ImportError as error:
    print(error, "tensorflow" in sys.modules)
"""
    told = run(code, KERAS_BACKEND="jax")
    assert "KERAS_BACKEND is 'jax'" in told
    assert told.endswith("False")


@pytest.mark.heavy
def test_another_backend_active_is_an_error() -> None:
    pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")
    code = f"""
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras
os.environ["KERAS_BACKEND"] = "tensorflow"  # too late
import data2vec
try:
    data2vec.{NAME}
except ImportError as error:
    print(error)
"""
    assert "already runs on 'torch'" in run(code, TF_CPP_MIN_LOG_LEVEL="3")
