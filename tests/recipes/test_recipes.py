"""Recipes: the published numbers once more, written down independently, and every preset whole and readable."""

import json
from dataclasses import replace

import pytest

from data2vec.errors import UserError
from data2vec.objectives.masking import BeitBlockMask, BlockMask1d, BlockMask2d, RandomMask, SpanMask, TextMask
from data2vec.recipes import v1, v2
from data2vec.recipes.config import PretrainConfig
from data2vec.recipes.presets import PRESETS, preset

ALL = [(modality, name) for modality, known in PRESETS.items() for name in known]


def facts(config: PretrainConfig) -> dict[str, object]:
    """What the paper's tables and the original files say about a run."""
    model, optim, ema, target = config.model, config.optim, config.objective.ema, config.objective.target
    return {
        "width": (model.hidden_size, model.num_hidden_layers, model.num_attention_heads, model.intermediate_size),
        "lr": (optim.lr, optim.betas, optim.eps, optim.weight_decay, optim.clip_norm),
        "updates": config.train.updates,
        "batch": config.data.batch_size,
        "ema": (ema.start, ema.end, ema.anneal_updates),
        "K": target.layers,
        "norms": (target.source, target.layer_norm, target.final_norm),
        "loss": (config.objective.loss_beta, config.objective.loss_scale, config.objective.head),
    }


def test_audio_base() -> None:
    config = v1.audio_base_960h()
    assert facts(config) == {
        "width": (768, 12, 12, 3072),
        "lr": (5e-4, (0.9, 0.98), 1e-6, 0.01, 0.0),
        "updates": 400_000,
        "batch": 60_800_000,
        "ema": (0.999, 0.9999, 30_000),
        "K": 8,
        "norms": ("ffn", "instance", "none"),
        "loss": (0.0, "rsqrt", "linear"),
    }
    assert config.mask == SpanMask(prob=0.65, length=10)
    assert (config.optim.schedule, config.optim.warmup, config.optim.hold) == ("tri_stage", 0.03, 0.9)
    assert config.data.batch_size / 16_000 / 60 == pytest.approx(63, abs=0.5)  # minutes, paper section 4.2


def test_audioset_differs_from_speech_where_its_yaml_does() -> None:
    speech, sound = facts(v1.audio_base_960h()), facts(v1.audio_audioset())
    changed = {"K", "norms", "updates", "batch"}
    assert {name for name in speech if speech[name] != sound[name]} == changed
    assert (sound["K"], sound["norms"], sound["updates"]) == (12, ("ffn", "instance", "layer"), 200_000)
    assert sound["batch"] == 81_600_000


def test_text_base() -> None:
    config = v1.text_base()
    assert facts(config) == {
        "width": (768, 12, 12, 3072),
        "lr": (2e-4, (0.9, 0.98), 1e-6, 0.01, 5.0),
        "updates": 1_000_000,
        "batch": 131_072,
        "ema": (0.999, 0.9999, 300_000),
        "K": 10,
        "norms": ("ffn", "layer", "none"),
        "loss": (4.0, 1.0, "mlp"),
    }
    assert config.mask == TextMask(prob=0.35, length=4, random_prob=0.0, keep_prob=0.0)
    assert (config.optim.schedule, config.optim.warmup) == ("cosine", 10_000)


@pytest.mark.parametrize(
    ("config", "width", "lr", "batch", "updates", "warmup_epochs", "scale", "drop_path"),
    [
        (v1.vision_base(), (768, 12, 12, 3072), 2e-3, 2048, 800 * 625, 10, 1e-4, 0.25),
        (v1.vision_large(), (1024, 24, 16, 4096), 1e-3, 4096, 800 * 312, 80, 1e-5, 0.2),
    ],
    ids=["base", "large"],
)
def test_vision(
    config: PretrainConfig,
    width: tuple[int, ...],
    lr: float,
    batch: int,
    updates: int,
    warmup_epochs: int,
    scale: float,
    drop_path: float,
) -> None:
    assert facts(config) == {
        "width": width,
        "lr": (lr, (0.9, 0.999), 1e-8, 0.05, 3.0),
        "updates": updates,
        "batch": batch,
        "ema": (0.9998, 0.9998, 0),
        "K": 6,
        "norms": ("block", "layer", "layer"),
        "loss": (2.0, "mean", "linear"),
    }
    assert config.mask == BeitBlockMask(prob=120 / 196, min_area=16)
    assert config.optim.warmup * 800 == warmup_epochs * updates
    assert config.optim.lr * config.optim.final_scale == pytest.approx(1e-5)
    assert (config.model.layer_scale_init_value, config.model.drop_path_rate) == (scale, drop_path)


V2 = {  # d/heads, prenet+depth, K, M, mask, decoder, tau, lr/warm-up, betas/eps/wd, clip, updates, batch (YAML)
    "audio base": (
        v2.audio_base,
        (768, 12, 0, 12, 8, 8, BlockMask1d(prob=0.5, adjust=0.05, length=5)),
        (384, 7, 4, 16, 1, True, 1, 0.999, 0.99999, 75_000, "encoder"),
        (7.5e-4, 8000, (0.9, 0.98), 1e-6, 0.01, 0.0, 400_000, 8_000_000),
    ),
    "audio large": (
        v2.audio_large,
        (1024, 16, 8, 24, 16, 12, BlockMask1d(prob=0.55, adjust=0.1, length=5)),
        (768, 7, 4, 16, 1, True, 1, 0.9997, 1.0, 300_000, "encoder"),
        (4e-4, 10_000, (0.9, 0.98), 1e-6, 0.01, 1.0, 600_000, 15_360_000),
    ),
    "vision base": (
        v2.vision_base,
        (768, 12, 2, 12, 10, 16, BlockMask2d(prob=0.8, adjust=0.07, length=3, inverse=True)),
        (768, 3, 6, 16, 2, True, 1, 0.9998, 0.99999, 100_000, "all"),
        (1e-3, 50_040, (0.9, 0.95), 1e-8, 0.05, 4.0, 375_300, 256),
    ),
    "vision large": (
        v2.vision_large,
        (1024, 16, 0, 24, 18, 16, BlockMask2d(prob=0.75, adjust=0.1, length=3, inverse=True)),
        (1024, 5, 3, 16, 2, True, 1, 0.9998, 0.99999, 150_000, "all"),
        (4e-4, 50_040, (0.9, 0.95), 1e-8, 0.05, 4.0, 375_300, 128),
    ),
    "vision huge14": (
        v2.vision_huge,
        (1280, 16, 0, 32, 24, 16, BlockMask2d(prob=0.75, adjust=0.1, length=3, inverse=True)),
        (1024, 5, 3, 16, 2, True, 1, 0.9998, 1.0, 300_000, "all"),
        (4e-4, 50_040, (0.9, 0.95), 1e-8, 0.05, 4.0, 500_000, 256),
    ),
    "text base": (
        v2.text_base,
        (768, 12, 0, 12, 12, 8, RandomMask(prob=0.48)),
        (768, 9, 5, 1, 1, False, 2, 0.9999, 0.99999, 100_000, "blocks"),
        (2e-4, 4000, (0.9, 0.98), 1e-6, 0.01, 1.0, 1_000_000, 64 * 512),
    ),
    "text large": (
        v2.text_large,
        (1024, 16, 0, 24, 24, 8, RandomMask(prob=0.5)),
        (768, 9, 5, 1, 1, False, 2, 0.9999, 0.99999, 100_000, "blocks"),
        (1e-4, 4000, (0.9, 0.98), 1e-6, 0.01, 1.0, 600_000, 64 * 512),
    ),
}


@pytest.mark.parametrize("name", V2)
def test_data2vec_2(name: str) -> None:
    recipe, network, objective, optimizer = V2[name]
    config = recipe()
    model, task, optim = config.model, config.objective, config.optim
    decoder, ema = task.decoder, task.ema
    shape = (model.hidden_size, model.num_attention_heads, model.prenet_depth, model.num_hidden_layers)
    assert network == (*shape, task.target.layers, config.copies, config.mask)
    convolutions = (decoder.channels, decoder.kernel, decoder.layers, decoder.groups, decoder.dimensions)
    projection = (decoder.residual, decoder.projection_layers)
    assert objective == (*convolutions, *projection, ema.start, ema.end, ema.anneal_updates, ema.scope)
    adam = (optim.betas, optim.eps, optim.weight_decay, optim.clip_norm)
    assert optimizer == (optim.lr, optim.warmup, *adam, config.train.updates, config.data.batch_size)
    assert (optim.optimizer, optim.decay, optim.schedule) == ("adam_fairseq", "all", "cosine")
    assert (task.loss_beta, task.loss_scale) == (0.0, 1.0 if config.modality == "text" else "rsqrt")
    dropout = 0.0 if config.modality == "vision" else 0.1
    names = ("hidden_dropout", "hidden_dropout_prob", "attention_dropout", "attention_probs_dropout_prob")
    assert {getattr(model, each) for each in names if hasattr(model, each)} == {dropout}
    assert task.cls_weight == (0.01 if config.modality == "vision" else 0.0)
    assert task.target.final_norm == {"vision": "layer"}.get(
        config.modality, "instance" if name == "text large" else "none"
    )
    assert task.target.layer_norm == ("layer" if name == "text large" else "instance")


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_every_preset_is_whole_and_survives_json(modality: str, name: str) -> None:
    config = preset(modality, name)
    assert config.modality == modality
    assert PretrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert f"{config.model.num_hidden_layers} layers" in config.summary()


def test_every_mask_survives_json() -> None:
    tiny = preset("audio", "tiny")
    for mask in (SpanMask(prob=0.5), TextMask(), BeitBlockMask(count=7)):
        config = replace(tiny, mask=mask)
        assert PretrainConfig.from_dict(config.to_dict()).mask == mask


@pytest.mark.parametrize(
    ("modality", "part", "change", "says"),
    [
        ("audio", "objective", "layers", r"objective\.target\.layers=99 exceeds model\.num_hidden_layers=4"),
        ("vision", "data", "image_size", r"data\.image_size=48 is not model\.image_size=32"),
        ("text", "data", "block_size", r"data\.block_size=128 exceeds the 64 tokens"),
    ],
)
def test_parts_that_do_not_fit_are_named(modality: str, part: str, change: str, says: str) -> None:
    tiny = preset(modality, "tiny")
    value = getattr(tiny, part)
    if change == "layers":
        value = replace(value, target=replace(value.target, layers=99))
    else:
        value = replace(value, **{change: {"image_size": 48, "block_size": 128}[change]})
    with pytest.raises(UserError, match=says):
        replace(tiny, **{part: value})


def test_only_data2vec_2_draws_several_masks_a_sample() -> None:
    with pytest.raises(UserError, match="copies=2: data2vec 2"):
        replace(preset("audio", "tiny"), copies=2)
    vision = preset("vision", "v2-tiny")
    too_deep = replace(vision.objective, target=replace(vision.objective.target, layers=4))
    with pytest.raises(UserError, match=r"layers=4 exceeds model\.num_hidden_layers=5 - model\.prenet_depth=2"):
        replace(vision, objective=too_deep)


def test_data_of_another_modality_is_refused() -> None:
    with pytest.raises(UserError, match="another modality"):
        replace(preset("audio", "tiny"), data=preset("text", "tiny").data)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown preset 'huge' for text; known: tiny, small, base, v2-tiny"):
        preset("text", "huge")
    with pytest.raises(UserError, match="unknown modality 'smell'; known: audio, vision, text"):
        preset("smell", "base")


@pytest.mark.parametrize("drop", ["modality", "mask", "data", "optim"])
def test_damaged_settings_are_a_user_error(drop: str) -> None:
    values = preset("vision", "tiny").to_dict()
    del values[drop]
    with pytest.raises(UserError, match="not the settings"):
        PretrainConfig.from_dict(values)
