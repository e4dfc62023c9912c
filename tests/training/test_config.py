"""A value out of range is one line that names the field."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from data2vec.errors import UserError
from data2vec.training.config import OptimConfig, TrainConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "sgd"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("betas", (0.9, 1.0)),
        ("eps", 0.0),
        ("weight_decay", -0.1),
        ("weight_decay", 1e6),
        ("decay", "none"),
        ("clip_norm", -1.0),
        ("schedule", "linear"),
        ("warmup", -1),
        ("power", 0.0),
        ("layer_decay", 1.5),
        ("lr_scale", {"decoder": -1.0}),
    ],
)
def test_optimizer_values(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"optim\.{name}\b"):
        OptimConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("updates", 0),
        ("max_minutes", 0.0),
        ("clock", "sun"),
        ("precision", "fp8"),
        ("accumulate", 0),
        ("log_every", 0),
        ("save_every", -1),
        ("keep_last", 0),
        ("max_bad_steps", 0),
        ("min_loss_scale", 1e9),
        ("seed", -1),
    ],
)
def test_loop_values(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"train\.{name}\b"):
        TrainConfig(**{"updates": 1, name: value})


def test_a_length_is_needed() -> None:
    with pytest.raises(UserError, match="updates and max_minutes"):
        TrainConfig()


def test_tri_stage_cannot_decay_to_zero() -> None:
    with pytest.raises(UserError, match="final_scale"):
        OptimConfig(schedule="tri_stage")


def test_configs_load_no_torch() -> None:
    code = "import sys, data2vec.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
