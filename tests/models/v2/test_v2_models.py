"""The models of data2vec 2: files, forward, padding, sizes, errors."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data2vec import (
    Data2Vec2AudioConfig,
    Data2Vec2AudioModel,
    Data2Vec2TextConfig,
    Data2Vec2TextModel,
    Data2Vec2VisionConfig,
    Data2Vec2VisionModel,
)
from data2vec.errors import UserError
from data2vec.models.encoder import Encoder
from data2vec.models.v2.encoder import VisibleEncoder

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 32,
    "prenet_depth": 1,
}
AUDIO = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_conv_pos_embedding_groups": 4}


def audio(**fields: Any) -> Data2Vec2AudioModel:
    return Data2Vec2AudioModel(Data2Vec2AudioConfig(**SMALL | AUDIO | fields)).eval()


def text(**fields: Any) -> Data2Vec2TextModel:
    size = {"vocab_size": 30, "max_position_embeddings": 24}
    return Data2Vec2TextModel(Data2Vec2TextConfig(**SMALL | size | fields)).eval()


def vision(**fields: Any) -> Data2Vec2VisionModel:
    return Data2Vec2VisionModel(Data2Vec2VisionConfig(**SMALL | {"image_size": 24, "patch_size": 4} | fields)).eval()


CASES = {
    "audio": (audio, lambda: {"input_values": torch.randn(2, 400)}, 39),
    "text": (text, lambda: {"input_ids": torch.randint(4, 30, (2, 20))}, 20),
    "vision": (vision, lambda: {"pixel_values": torch.randn(2, 3, 24, 24)}, 1 + 36),
}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Tensor], int]:
    make, inputs, tokens = CASES[request.param]
    return make(), inputs(), tokens


def test_outputs(case: tuple[Any, dict[str, Tensor], int]) -> None:
    model, inputs, tokens = case
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert out.last_hidden_state.shape == (2, tokens, 16)
    assert len(out.hidden_states) == 4
    assert len(out.attentions) == 3
    assert out.attentions[0].shape == (2, 4, tokens, tokens)
    torch.testing.assert_close(out.hidden_states[-1], out.last_hidden_state)
    assert isinstance(model(**inputs, return_dict=False), tuple)


def test_an_objective_can_use_them(case: tuple[Any, dict[str, Tensor], int]) -> None:
    model, inputs, tokens = case
    assert isinstance(model, Encoder)
    assert isinstance(model, VisibleEncoder)
    seen = model.contextualize(model.embed(inputs))
    assert len(seen.ffns) == len(seen.blocks) == 2  # shared blocks only
    torch.testing.assert_close(seen.output, model(**inputs).last_hidden_state)
    assert seen.output.shape[1] - seen.prefix == tokens - seen.prefix


def test_survive_a_round_trip(case: tuple[Any, dict[str, Tensor], int], tmp_path: Path) -> None:
    model, inputs, _ = case
    model.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert report.missing == report.unexpected == []
    assert torch.equal(again(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == model.config.model_type
    assert not {"is_decoder", "use_mask_token", "type_vocab_size"} & set(stored)
    assert again.config == type(model.config).from_dict(stored)


def test_a_part_of_a_checkpoint_is_completed(
    case: tuple[Any, dict[str, Tensor], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file lacks starts as a new model does, fixed positions included; nothing stays as memory happens to be."""
    monkeypatch.setattr(torch, "empty_like", lambda *given, **options: torch.full_like(*given, nan, **options))
    model, inputs, _ = case
    kept = {n: t for n, t in model.state_dict().items() if n.startswith("encoder.blocks.")}
    model.save_pretrained(tmp_path, state_dict=kept)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert report.missing
    assert [name for name, tensor in again.state_dict().items() if not tensor.isfinite().all()] == []
    assert bool(again(**inputs).last_hidden_state.isfinite().all())
    for name, tensor in model.state_dict().items():
        if name.endswith(("fixed_positions", "alibi_scale", "norm.weight")):
            assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize("kind", ["audio", "text"])
def test_padding_changes_nothing(kind: str) -> None:
    make, inputs, _ = CASES[kind]
    model, batch = make(), inputs()
    name = next(iter(batch))
    length = 250 if kind == "audio" else 13
    alone = model(**{name: batch[name][:1, :length]}).last_hidden_state
    mask = torch.ones_like(batch[name], dtype=torch.long)
    mask[0, length:] = 0
    padded = model(**{name: batch[name]}, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(padded[:1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_released_padding_reaches_valid_frames() -> None:
    """Algorithms P8, as an option: without zeroing, what lies in the padding matters."""
    model = audio(zero_padded_frames=False)
    waves = torch.randn(1, 400)
    mask = torch.ones(1, 400, dtype=torch.long)
    mask[0, 250:] = 0
    other = waves.clone()
    other[0, 250:] = 9.0
    valid = model.config.frames(250)
    one, two = (model(w, attention_mask=mask).last_hidden_state[:, :valid] for w in (waves, other))
    assert not torch.allclose(one, two)


def test_text_without_attention_mask_knows_its_padding() -> None:
    model = text()
    ids = torch.randint(4, 30, (1, 12))
    padded = torch.cat([ids, torch.ones(1, 4, dtype=torch.long)], 1)
    torch.testing.assert_close(
        model(padded).last_hidden_state[:, :12], model(ids).last_hidden_state, rtol=1e-4, atol=1e-5
    )
    words = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=words).last_hidden_state, model(ids).last_hidden_state)


def test_masks_of_fine_tuning() -> None:
    model = audio(mask_noise_std=0.0)
    waves, mask = torch.randn(2, 400), torch.zeros(2, 39, dtype=torch.bool)
    mask[:, 5:9] = True
    hidden = model(waves, mask_time_indices=mask).last_hidden_state
    assert not torch.allclose(hidden, model(waves).last_hidden_state)
    noisy = audio(mask_noise_std=1.0)
    torch.manual_seed(1)
    one = noisy(waves, mask_time_indices=mask).last_hidden_state
    assert not torch.allclose(one, noisy(waves, mask_time_indices=mask).last_hidden_state)
    assert torch.equal(
        vision()(torch.zeros(1, 3, 24, 24), bool_masked_pos=torch.zeros(1, 6, 6)).last_hidden_state.isfinite(),
        torch.ones(1, 37, 16, dtype=torch.bool),
    )


def test_pooling() -> None:
    pixels = torch.randn(2, 3, 24, 24)
    model = Data2Vec2VisionModel(vision().config, add_pooling_layer=True).eval()
    out = model(pixels)
    mean = out.last_hidden_state[:, 1:].mean(1)
    torch.testing.assert_close(out.pooler_output, torch.nn.functional.layer_norm(mean, (16,), eps=1e-6))
    first = Data2Vec2VisionModel(vision(use_mean_pooling=False).config, add_pooling_layer=True).eval()(pixels)
    torch.testing.assert_close(first.pooler_output, first.last_hidden_state[:, 0])
    ids = torch.randint(4, 30, (2, 9))
    assert Data2Vec2TextModel(text().config, add_pooling_layer=True)(ids).pooler_output.shape == (2, 16)


def test_other_image_sizes() -> None:
    model, pixels = vision(), torch.randn(1, 3, 28, 32)
    with pytest.raises(UserError, match="interpolate_pos_encoding"):
        model(pixels)
    assert model(pixels, interpolate_pos_encoding=True).last_hidden_state.shape == (1, 1 + 7 * 8, 16)


def test_alibi_on_a_grid() -> None:
    model, pixels = vision(use_alibi=True), torch.randn(1, 3, 24, 24)
    weights = model(pixels, output_attentions=True).attentions[0][0, 0, 1]
    assert bool(weights[2] > weights[36])  # the neighbour above the far corner


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Data2Vec2AudioConfig(num_hidden_layers=2, prenet_depth=3), "prenet_depth 3"),
        (lambda: Data2Vec2TextConfig(is_decoder=True), "is_decoder"),
        (lambda: Data2Vec2VisionConfig(use_mask_token=True), "use_mask_token"),
        (lambda: Data2Vec2VisionConfig(hidden_size=6, num_attention_heads=2), "multiple of 4"),
        (lambda: audio()(torch.randn(2, 3)), "too short"),
        (lambda: audio()(torch.randn(400)), "batch, samples"),
        (lambda: audio()(torch.randn(2, 400), attention_mask=torch.ones(2, 5)), "attention_mask"),
        (lambda: text()(torch.zeros(1, 23, dtype=torch.long)), "truncate"),
        (lambda: text()(), "exactly one"),
        (lambda: text()(torch.ones(1, 5, dtype=torch.long), attention_mask=torch.ones(1, 4)), "attention_mask"),
        (lambda: vision()(torch.randn(1, 1, 24, 24)), "pixel_values"),
        (lambda: vision()(torch.randn(1, 3, 3, 24)), "smaller than a patch"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Data2Vec2AudioConfig.base(), (768, 12, 0)),
        (Data2Vec2AudioConfig.large(), (1024, 24, 8)),
        (Data2Vec2TextConfig.base(), (768, 12, 0)),
        (Data2Vec2TextConfig.large(), (1024, 24, 0)),
        (Data2Vec2VisionConfig.base(), (768, 12, 2)),
        (Data2Vec2VisionConfig.large(), (1024, 24, 0)),
        (Data2Vec2VisionConfig.huge(), (1280, 32, 0)),
    ],
)
def test_published_sizes(config: Any, shape: tuple[int, int, int]) -> None:
    assert (config.hidden_size, config.num_hidden_layers, config.prenet_depth) == shape
    assert config.hidden_size * 4 == config.intermediate_size


@pytest.mark.parametrize(
    ("make", "kind", "total", "decoder"),
    [
        (lambda: Data2Vec2AudioModel(Data2Vec2AudioConfig.base()), "audio", 93.8, 0.62),
        (lambda: Data2Vec2VisionModel(Data2Vec2VisionConfig.base()), "vision", 88.4, 2.6),
        (lambda: Data2Vec2TextModel(Data2Vec2TextConfig.base()), "text", 153, 28.9),
    ],
)
def test_published_parameter_counts(make: Any, kind: str, total: float, decoder: float) -> None:
    """Of model and decoder, in millions (algorithms 2.8), fixed positions included."""
    from data2vec.nn.decoder import Decoder
    from data2vec.objectives.config import Data2Vec2ObjectiveConfig

    with torch.device("meta"):
        model = make()
        head = Decoder(model.config.hidden_size, **vars(getattr(Data2Vec2ObjectiveConfig, kind)().decoder))
    count = sum(p.numel() for p in [*model.parameters(), *model.buffers(), *head.parameters()])
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(decoder, rel=0.02)
    assert count / 1e6 == pytest.approx(total, rel=0.005)


def test_text_without_position_embeddings_has_its_order_from_alibi() -> None:
    ids, order = torch.randint(4, 30, (1, 12)), torch.tensor([5, 0, 7, 1, 11, 2, 9, 3, 10, 4, 8, 6])
    for alibi in (False, True):
        model = text(use_position_embeddings=False, use_alibi=alibi)
        assert not any("position" in name for name, _ in model.named_parameters())
        sorted_, mixed = (model(x).last_hidden_state for x in (ids, ids[:, order]))
        assert torch.allclose(sorted_[:, order], mixed, atol=1e-5) is not alibi
