"""The published data2vec 1 recipes, as tables to check against their sources.

Sources, named in the comments:

* YAML: https://github.com/facebookresearch/fairseq at 3d262bb2, ``examples/data2vec/config/{audio,text}/pretraining``.
* README: https://github.com/facebookresearch/data2vec_vision at af9a3634, ``beit/README.md``; BEiT: defaults of its
  ``run_cyclical.py``.
* paper: arXiv 2202.03555v3. Where the paper, the files and the released models disagree, the files are followed and the
  other value is named beside.

Three things differ from all of them on purpose. ``precision="auto"`` is bf16 where the hardware has it; the originals
ran fp16, as ``train.precision=fp16`` does with their loss scale. Batches are global, the same at any number of
processes. Masks keep their spans whole; speech batches were trimmed to one count of masked frames by showing single
ones again (``require_same_masks``).
"""

from __future__ import annotations

from dataclasses import replace

from data2vec.data.config import AudioDataConfig, LoaderConfig, TextDataConfig, VisionDataConfig
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.objectives.config import CollapseConfig, EmaConfig, ObjectiveConfig, TargetConfig
from data2vec.objectives.masking import BeitBlockMask, SpanMask, TextMask
from data2vec.recipes.config import PretrainConfig
from data2vec.training.config import OptimConfig, TrainConfig

IMAGENET_IMAGES = 1_281_167  # vision schedules are in epochs of ImageNet-1k; ours are in updates


def audio_base_960h() -> PretrainConfig:
    """Speech base on LibriSpeech 960 h: ``base_librispeech.yaml``, run on 16 GPUs."""
    return PretrainConfig(
        model=Data2VecAudioConfig(  # YAML `model`, else the defaults of wav2vec2.py (12 x 768)
            layerdrop=0.05,
            hidden_dropout=0.1,
            attention_dropout=0.1,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,  # dropout_input
            num_conv_pos_embeddings=5,  # pos_conv_depth
            conv_pos_kernel_size=19,  # conv_pos 95 // pos_conv_depth
        ),
        objective=ObjectiveConfig(  # YAML `model`
            target=TargetConfig(layers=8, source="ffn", layer_norm="instance", final_norm="none"),
            ema=EmaConfig(
                start=0.999,
                end=0.9999,
                anneal_updates=30_000,
                scope="encoder",  # ema_transformer_only: the teacher reads the student's convolution features
                copied=("encoder.positions",),  # ema_layers_only; the released model averaged them too (issue 4342)
            ),
            loss_beta=0.0,
            loss_scale="rsqrt",  # loss_scale null
            head="linear",
        ),
        mask=SpanMask(prob=0.65, length=10),
        data=AudioDataConfig(  # YAML `task`, `dataset`
            min_samples=32_000,
            max_samples=320_000,
            normalize=True,
            batch_samples=16 * 3_800_000,  # 63 minutes
        ),
        optim=OptimConfig(  # YAML `optimizer`, `lr_scheduler`, `optimization`
            optimizer="adam_fairseq",
            lr=5e-4,
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=0.01,
            decay="all",
            clip_norm=0.0,
            schedule="tri_stage",  # phase_ratio [.03, .9, .07]; the decay is exponential (paper: linear)
            warmup=0.03,
            hold=0.9,
            init_scale=0.01,
            final_scale=0.01,
        ),
        train=TrainConfig(updates=400_000, loss_scale=128, loss_scale_window=2**14 // 16, min_loss_scale=1e-4, seed=1),
    )


def audio_audioset() -> PretrainConfig:
    """Sound base on AudioSet: ``audioset.yaml``, run on 24 GPUs.

    Its deepnorm blocks (``self_attn_norm_type``) are not in the public code: blocks are post-norm here.
    """
    speech = audio_base_960h()
    return replace(
        speech,
        objective=replace(
            speech.objective,
            target=replace(speech.objective.target, layers=12, final_norm="layer"),
            ema=replace(speech.objective.ema, copied=()),  # ema_layers_only false: positions are averaged too
        ),
        data=AudioDataConfig(min_samples=32_000, max_samples=320_000, normalize=True, batch_samples=24 * 3_400_000),
        optim=replace(speech.optim, schedule="cosine", warmup=10_000, init_scale=0.0, final_scale=0.0),
        train=replace(speech.train, updates=200_000, loss_scale_window=2**14 // 24, min_loss_scale=1e-6),
    )


def text_base() -> PretrainConfig:
    """Text base on books and Wikipedia: ``base.yaml``, run on 16 GPUs.

    It is the paper's "+ wav2vec 2.0 masking" row. The main row has BERT's mask, ``TextMask()``, a tri-stage schedule
    (5, 80, 15 %) and anneals the EMA over 100k updates.
    """
    return PretrainConfig(
        model=Data2VecTextConfig.base(),  # RoBERTa base; dropout .1, attention dropout .1
        objective=ObjectiveConfig(
            target=TargetConfig(layers=10, source="ffn", layer_norm="layer", final_norm="none"),
            ema=EmaConfig(
                start=0.999,
                end=0.9999,
                anneal_updates=300_000,  # paper: 100k
                scope="encoder",
                copied=("encoder.positions", "encoder.token_types", "encoder.norm"),  # ema_transformer_layers_only
            ),
            loss_beta=4.0,
            loss_scale=1.0,
            head="mlp",  # head_layers 2
        ),
        mask=TextMask(prob=0.35, length=4, random_prob=0.0, keep_prob=0.0),
        data=TextDataConfig(
            block_size=512,  # tokens_per_sample
            blocks="complete",  # sample_break_mode complete_doc
            batch_tokens=16 * 8192,  # max_tokens: 256 rows
        ),
        optim=OptimConfig(
            optimizer="adam_fairseq",
            lr=2e-4,
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=0.01,
            decay="all",
            clip_norm=5.0,
            schedule="cosine",
            warmup=10_000,
            final_scale=0.0,
        ),
        train=TrainConfig(
            updates=1_000_000, loss_scale=128, loss_scale_window=2**14 // 16, min_loss_scale=1e-4, seed=1
        ),
    )


def vision_base() -> PretrainConfig:
    """ViT-B/16 on ImageNet-1k, 800 epochs: the README's first command, run on 16 GPUs."""
    epoch = IMAGENET_IMAGES // 2048  # updates; the last, smaller batch is left out
    return PretrainConfig(
        model=Data2VecVisionConfig(
            image_size=224,
            patch_size=16,
            layer_norm_eps=1e-6,
            layer_scale_init_value=1e-4,
            drop_path_rate=0.25,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.05,
            use_mask_token=True,
            use_shared_relative_position_bias=True,
            use_mean_pooling=False,  # the student's output passes the final norm
        ),
        objective=ObjectiveConfig(
            target=TargetConfig(  # --target_layers [6..11] --layer_results end --post_target_layer_norm
                layers=6, source="block", layer_norm="layer", final_norm="layer"
            ),
            ema=EmaConfig(start=0.9998, end=0.9998, anneal_updates=0, scope="all"),  # --ema_start_at 0: never annealed
            loss_beta=2.0,  # --l1_beta
            loss_scale="mean",  # --loss_scale -1
            head="linear",  # lm_head
            collapse=CollapseConfig(min_target_var=0.0, min_pred_var=0.0, max_position_share=0.0),  # not watched there
        ),
        mask=BeitBlockMask(prob=120 / 196, min_area=16),  # --num_mask_patches 120, of 14 x 14
        data=VisionDataConfig(  # `datasets.py`; --imagenet_default_mean_and_std
            image_size=224,
            augment="jitter_flip_crop",
            jitter=0.4,
            scale=(0.08, 1.0),
            batch_images=16 * 128,
        ),
        loader=LoaderConfig(drop_last=True),
        optim=OptimConfig(
            optimizer="adamw",
            lr=2e-3,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.05,
            decay="matrices",
            clip_norm=3.0,
            schedule="cosine",
            warmup=10 * epoch,  # paper: 40 epochs
            final_scale=1e-5 / 2e-3,  # --min_lr 1e-5
        ),
        train=TrainConfig(updates=800 * epoch, seed=0),
    )


def vision_large() -> PretrainConfig:
    """ViT-L/16 on ImageNet-1k, 800 epochs: the README's command for L, run on 64 GPUs.

    The 1600-epoch model ran a second time from the first one's weights, with EMA decay .9999 and 40 epochs of warm-up.
    """
    base = vision_base()
    epoch = IMAGENET_IMAGES // 4096  # paper: batches of 8192
    return replace(
        base,
        model=base.model.replace(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            layer_scale_init_value=1e-5,
            drop_path_rate=0.2,
            attention_probs_dropout_prob=0.15,
        ),
        data=VisionDataConfig(
            image_size=224, augment="jitter_flip_crop", jitter=0.4, scale=(0.08, 1.0), batch_images=64 * 64
        ),
        optim=replace(base.optim, lr=1e-3, warmup=80 * epoch, final_scale=1e-5 / 1e-3),
        train=replace(base.train, updates=800 * epoch),
    )
