"""The published data2vec 2 recipes, as tables to check against their sources.

Source: https://github.com/facebookresearch/fairseq at 3d262bb2, ``examples/data2vec/config/v2/*_only_task.yaml`` (YAML
below); paper: arXiv 2212.07525. Models and objectives are those of the ``base``, ``large`` ... constructors of their
configurations, which carry the YAML's values.

As published, weight decay is on all parameters: the files ask for exceptions, which the released code overlooks. Masks
are drawn after cropping, so that each has its exact count; the released ones are cropped after. Precision and batches
are as in `data2vec.recipes.v1`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from data2vec.data.config import AudioDataConfig, LoaderConfig, TextDataConfig, VisionDataConfig
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.objectives.config import Data2Vec2ObjectiveConfig
from data2vec.objectives.masking import BlockMask1d, BlockMask2d, RandomMask
from data2vec.recipes.config import PretrainConfig
from data2vec.training.config import OptimConfig, TrainConfig


def audio_base() -> PretrainConfig:
    """Speech base on LibriSpeech 960 h: ``base_audio_only_task.yaml``, run on 8 GPUs."""
    return PretrainConfig(
        model=Data2Vec2AudioConfig.base(),
        objective=Data2Vec2ObjectiveConfig.audio("base"),
        mask=BlockMask1d(prob=0.5, adjust=0.05, length=5),
        copies=8,  # clone_batch
        data=AudioDataConfig(min_samples=32_000, max_samples=320_000, normalize=True, batch_samples=8 * 1_000_000),
        optim=_optim(lr=7.5e-4, warmup=8000, clip_norm=0.0),
        train=TrainConfig(updates=400_000, loss_scale_window=2**14 // 8, min_loss_scale=1e-6, seed=1),
    )


def audio_large() -> PretrainConfig:
    """Speech large on Libri-light: ``large_audio_only_task.yaml``, run on 48 GPUs."""
    return PretrainConfig(
        model=Data2Vec2AudioConfig.large(),
        objective=Data2Vec2ObjectiveConfig.audio("large"),
        mask=BlockMask1d(prob=0.55, adjust=0.1, length=5),
        copies=12,
        data=AudioDataConfig(min_samples=32_000, max_samples=320_000, normalize=True, batch_samples=48 * 320_000),
        optim=_optim(lr=4e-4, warmup=10_000, clip_norm=1.0),
        train=TrainConfig(updates=600_000, loss_scale_window=2**14 // 48, min_loss_scale=1e-6, seed=1),
    )


def vision_base() -> PretrainConfig:
    """ViT-B/16 on ImageNet-1k, 75 epochs: ``base_images_only_task.yaml``, run on 16 GPUs."""
    return PretrainConfig(
        model=Data2Vec2VisionConfig.base().replace(**_NO_DROPOUT),
        objective=Data2Vec2ObjectiveConfig.vision("base"),
        mask=BlockMask2d(prob=0.8, adjust=0.07, length=3, inverse=True),
        copies=16,
        data=_images(batch=16 * 16),
        loader=LoaderConfig(drop_last=True),
        optim=_optim(lr=1e-3, warmup=50_040, clip_norm=4.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05),
        train=TrainConfig(updates=375_300, loss_scale_window=2**14 // 16, min_loss_scale=1e-6, seed=1),
    )


def vision_large() -> PretrainConfig:
    """ViT-L/16 on ImageNet-1k, 37.5 epochs (paper: 150): ``large_images_only_task.yaml``, run on 16 GPUs."""
    base = vision_base()
    return replace(
        base,
        model=Data2Vec2VisionConfig.large().replace(**_NO_DROPOUT),
        objective=Data2Vec2ObjectiveConfig.vision("large"),
        mask=BlockMask2d(prob=0.75, adjust=0.1, length=3, inverse=True),
        data=_images(batch=16 * 8),
        optim=replace(base.optim, lr=4e-4),
    )


def vision_huge(patch_size: Literal[14, 16] = 14) -> PretrainConfig:
    """ViT-H/14 or /16 on ImageNet-1k, 100 epochs: ``huge_images14_only_task.yaml``, ``huge_images_only_task.yaml``."""
    large = vision_large()
    return replace(
        large,
        model=Data2Vec2VisionConfig.huge(patch_size).replace(**_NO_DROPOUT),
        objective=Data2Vec2ObjectiveConfig.vision("huge14" if patch_size == 14 else "huge"),
        data=_images(batch=32 * 8),
        train=replace(large.train, updates=500_000, loss_scale_window=2**14 // 32),
    )


def text_base() -> PretrainConfig:
    """Text base on books and Wikipedia: ``base_text_only_task.yaml``, run on 16 GPUs."""
    return PretrainConfig(
        model=Data2Vec2TextConfig.base(),
        objective=Data2Vec2ObjectiveConfig.text("base"),
        mask=RandomMask(prob=0.48),
        copies=8,
        data=TextDataConfig(block_size=512, blocks="stream", batch_tokens=16 * 4 * 512),  # sample_break_mode none
        optim=_optim(lr=2e-4, warmup=4000, clip_norm=1.0),
        train=TrainConfig(updates=1_000_000, loss_scale_window=2**14 // 16, min_loss_scale=1e-4, seed=1),
    )


def text_large() -> PretrainConfig:
    """Text large: ``large_text_only_task.yaml``, run on 32 GPUs."""
    base = text_base()
    return replace(
        base,
        model=Data2Vec2TextConfig.large(),
        objective=Data2Vec2ObjectiveConfig.text("large"),
        mask=RandomMask(prob=0.5),
        data=TextDataConfig(block_size=512, blocks="stream", batch_tokens=32 * 2 * 512),
        optim=replace(base.optim, lr=1e-4),
        train=replace(base.train, updates=600_000, loss_scale_window=2**14 // 32),
    )


_NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0}


def _images(batch: int) -> VisionDataConfig:
    return VisionDataConfig(image_size=224, augment="crop_flip", scale=(0.2, 1.0), batch_images=batch)


def _optim(
    lr: float,
    warmup: int,
    clip_norm: float,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
) -> OptimConfig:
    """Adam as fairseq has it, with decay on everything, a linear warm-up from 0 and a cosine to 0."""
    return OptimConfig(
        optimizer="adam_fairseq",
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        decay="all",
        clip_norm=clip_norm,
        schedule="cosine",
        warmup=warmup,
    )
