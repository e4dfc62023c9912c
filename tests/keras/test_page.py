"""The commands of docs/tensorflow.md, on a small model of one's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")

from data2vec import Data2VecVisionForImageClassification, TFData2VecVisionForImageClassification
from data2vec.models.vision.config import Data2VecVisionConfig

PAGE = Path(__file__).parents[2] / "docs" / "tensorflow.md"


@pytest.mark.heavy
def test_the_page_runs(
    tiny: Callable[..., Data2VecVisionConfig],
    pixels: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    TFData2VecVisionForImageClassification(tiny(num_hidden_layers=1)).save_pretrained("published")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    for there, here in (("facebook/data2vec-vision-base-ft1k", "published"), ("(320, 480)", "(24, 16)")):
        assert there in code
        code = code.replace(there, here)
    names: dict[str, Any] = {"images": pixels(4), "labels": np.array([0, 1, 2, 1])}
    exec(compile(code, PAGE.name, "exec"), names)
    assert names["outputs"].logits.shape == (4, 3)
    assert Data2VecVisionForImageClassification.from_pretrained("fine-tuned").config.num_labels == 3
    assert all(Path(name).exists() for name in ("exported", "model.tflite", "model8.tflite", "wide"))
