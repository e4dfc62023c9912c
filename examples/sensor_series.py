"""Pre-train a modality of your own: series of a six-channel motion sensor.

Anything that answers `embed` and `contextualize` can be pre-trained. Here it is a linear map of windows and layers from
torch.nn; the recordings are made up: five activities, each with its rhythm, in a pocket that turns the sensor any way.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from data2vec import Data2VecObjective
from data2vec.evaluation.probe import extract_features, linear_probe
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.objectives.config import EmaConfig, ObjectiveConfig, TargetConfig
from data2vec.objectives.masking import SpanMask

CHANNELS, SAMPLES, WINDOW, WIDTH = 6, 400, 8, 64  # 8 s at 50 Hz, in windows of .16 s
ACTIVITIES = {"walk": (1.8, 0.5), "run": (2.7, 0.5), "stairs": (1.5, 0.9), "cycle": (1.2, 0.1), "row": (0.5, 0.3)}


def record(items: int, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """Series (items, SAMPLES, CHANNELS) of acceleration and rotation, and what was done; each is turned at random."""
    labels = rng.choice(list(ACTIVITIES), items)
    time = np.arange(SAMPLES) / 50
    series = np.zeros((items, SAMPLES, CHANNELS))
    for item, label in enumerate(labels):
        rate, bounce = ACTIVITIES[label]
        phase = 2 * np.pi * (rate * rng.uniform(0.8, 1.25) * time + rng.random())
        waves = [np.sin(k * phase + shift) * bounce ** (k - 1) for k in (1, 2, 3) for shift in (0.3 * k, 1.1 * k)]
        turn = np.linalg.qr(rng.standard_normal((CHANNELS, CHANNELS)))[0]
        series[item] = rng.uniform(0.5, 1.5) * np.stack(waves, 1) @ turn + rng.normal(0, 0.5, (SAMPLES, CHANNELS))
    return torch.from_numpy(series.astype(np.float32)), labels


class SensorEncoder(nn.Module):
    """Windows -> tokens (B, T, WIDTH) -> Transformer."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.frontend = nn.Linear(WINDOW * CHANNELS, WIDTH)  # the teacher goes without what is called `frontend`
        self.mask_embedding = nn.Parameter(0.02 * torch.randn(WIDTH))
        self.neighbours = nn.Conv1d(WIDTH, WIDTH, 9, padding=4, groups=16)  # where a token stands, from those around it
        settings = {"dropout": 0.0, "activation": "gelu", "batch_first": True}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, **settings) for _ in range(layers))

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        """``series`` (B, SAMPLES, CHANNELS) -> tokens."""
        return Tokens(self.frontend(batch["series"].unflatten(1, (-1, WINDOW)).flatten(2)))

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        """Every layer's output; hidden tokens are replaced before they are looked at."""
        x = tokens.features
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_embedding, x)
        x, blocks = x + nn.functional.gelu(self.neighbours(x.mT)).mT, []
        for layer in self.layers:
            x = layer(x)
            blocks.append(x)
        return LayerOutputs(x, blocks, ffns=[])  # ffns are for `TargetConfig(source="ffn")`


def pretrain(encoder: SensorEncoder, series: Tensor, updates: int, rng: np.random.Generator) -> None:
    """The whole of data2vec, without labels."""
    target = TargetConfig(layers=3, source="block", layer_norm="instance")
    ema = EmaConfig(start=0.99, end=0.999, anneal_updates=updates)
    task = Data2VecObjective(encoder, ObjectiveConfig(target=target, ema=ema), width=WIDTH)
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=updates, pct_start=0.1)
    mask = SpanMask(prob=0.65, length=5)
    for update in range(1, updates + 1):
        hidden = np.stack([mask(rng, SAMPLES // WINDOW) for _ in range(32)])
        out = task({"series": series[rng.choice(len(series), 32)], "mask": torch.from_numpy(hidden)})
        (out.loss_sum / out.count).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        task.after_step(update)


def main(updates: int = 500, items: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The probe's accuracy before and after."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    (train, train_y), (dev, dev_y) = record(items, rng), record(items // 2, rng)
    encoder = SensorEncoder()

    def probe() -> float:
        train_x, dev_x = (extract_features(encoder, [{"series": x} for x in part.split(100)]) for part in (train, dev))
        return linear_probe(train_x, train_y, dev_x, dev_y).accuracy

    before = probe()
    pretrain(encoder, train, updates, rng)
    return before, probe()


if __name__ == "__main__":
    print("linear probe of five activities: {:.1%} untrained, {:.1%} pre-trained".format(*main()))
