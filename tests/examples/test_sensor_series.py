"""The example of a modality of one's own: short, and it learns."""

import importlib.util
from pathlib import Path

FILE = Path(__file__).parents[2] / "examples" / "sensor_series.py"


def test_it_is_short() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 100


def test_pre_training_helps_an_encoder_of_ones_own() -> None:
    spec = importlib.util.spec_from_file_location("sensor_series", FILE)
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    before, after = example.main(updates=200, items=600)
    assert after > before + 0.05  # 300 held-out items: a standard error is .03
