"""Schedules against the tables that the original code wrote, and what must hold for any values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data2vec.objectives.config import EmaConfig
from data2vec.training.config import OptimConfig
from data2vec.training.schedules import learning_rate

LEARNING_RATES = {
    "v1_audio_tri_stage": (
        OptimConfig(lr=5e-4, schedule="tri_stage", warmup=0.03, hold=0.9, init_scale=0.01, final_scale=0.01),
        400_000,
    ),
    "ft_tri_stage_base_100h": (
        OptimConfig(lr=3e-5, schedule="tri_stage", warmup=0.1, hold=0.4, init_scale=0.01, final_scale=0.05),
        80_000,
    ),
    "v1_text_cosine": (OptimConfig(lr=2e-4, warmup=10_000), 1_000_000),
    "v2_audio_cosine": (OptimConfig(lr=7.5e-4, warmup=8_000), 400_000),
    "v2_image_cosine": (OptimConfig(lr=1e-3, warmup=50_040), 375_300),
    "glue_poly_rte": (OptimConfig(lr=2e-5, schedule="polynomial", warmup=122), 2036),
}
EMA = {
    "ema_v1_audio": (0.999, 0.9999, 30_000),
    "ema_v1_text": (0.999, 0.9999, 300_000),
    "ema_v2_audio": (0.999, 0.99999, 75_000),
    "ema_v2_image": (0.9998, 0.99999, 100_000),
    "ema_v2_text": (0.9999, 0.99999, 100_000),
    "ema_v2_audio_large": (0.9997, 1.0, 300_000),
}


@pytest.fixture(scope="module")
def tables(oracle_dir: Path) -> dict[str, dict[int, float]]:
    tables: dict[str, dict[int, float]] = torch.load(oracle_dir / "schedules.pt", weights_only=True)
    return tables


def test_every_table_is_compared(tables: dict[str, dict[int, float]]) -> None:
    assert set(tables) == set(LEARNING_RATES) | set(EMA)


@pytest.mark.parametrize("name", LEARNING_RATES)
def test_learning_rate_equals_the_original(name: str, tables: dict[str, dict[int, float]]) -> None:
    config, total = LEARNING_RATES[name]
    for update, expected in tables[name].items():
        assert learning_rate(config, update, total) == pytest.approx(expected, rel=1e-12, abs=0), update


@pytest.mark.parametrize("name", EMA)
def test_ema_decay_equals_the_original(name: str, tables: dict[str, dict[int, float]]) -> None:
    start, end, updates = EMA[name]
    for update, expected in tables[name].items():
        assert EmaConfig(start, end, updates).decay(update) == pytest.approx(expected, rel=1e-15)


@given(
    schedule=st.sampled_from(["cosine", "tri_stage", "polynomial", "constant"]),
    total=st.integers(1, 500),
    warmup=st.one_of(st.floats(0, 0.99), st.integers(1, 50)),
    hold=st.floats(0, 0.5),
    final_scale=st.floats(0.001, 1),
)
def test_rates_stay_between_zero_and_the_peak_and_end_low(
    schedule: str, total: int, warmup: float, hold: float, final_scale: float
) -> None:
    config = OptimConfig(lr=1e-3, schedule=schedule, warmup=warmup, hold=hold, final_scale=final_scale)  # type: ignore[arg-type]
    rates = [learning_rate(config, update, total) for update in range(total)]
    assert all(0 <= rate <= 1e-3 * (1 + 1e-12) for rate in rates)
    length = warmup if warmup >= 1 else warmup * total
    after = [rate for update, rate in enumerate(rates) if update >= length]
    assert after == sorted(after, reverse=True), "the rate never rises after the warm-up"


def test_vision_floor_is_a_share_of_the_peak() -> None:
    config = OptimConfig(lr=2e-3, warmup=10, final_scale=0.005)  # BEiT's --min_lr 1e-5
    assert learning_rate(config, 999, 1000) == pytest.approx(1e-5, rel=1e-3)
