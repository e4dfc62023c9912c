"""Image heads where the reference is wrong: which blocks segmentation reads, images and grids of any shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from data2vec import Data2VecVisionConfig, Data2VecVisionForSemanticSegmentation, Data2VecVisionModel, UserError
from data2vec.models.names import VISION
from data2vec.nn.positions import RelativePositionBias
from data2vec.weights import read_file, write_file

SEGMENTER = "Data2VecVisionForSemanticSegmentation"
BLOCKS = {"out_indices": (2, 3, 4, 5), "num_hidden_layers": 6}


def segmenter(**changes: Any) -> Data2VecVisionForSemanticSegmentation:
    model = zoo.build(SEGMENTER, **changes)
    assert isinstance(model, Data2VecVisionForSemanticSegmentation)
    return model


def images(height: int = 32, width: int = 32, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(5))


# ---- segmentation reads the blocks that are named


def test_the_named_blocks_feed_the_head_and_in_the_reference_two_earlier() -> None:
    """A change of block 5 is seen by a head that names block 5."""
    for compat, reads in (({}, True), ({"compat": "transformers"}, False)):
        model = segmenter(**BLOCKS, **compat)
        assert model.config.feature_blocks == ((2, 3, 4, 5) if reads else (0, 1, 2, 3))
        before = model(images()).logits
        with torch.no_grad():
            model.data2vec_vision.encoder.blocks[5].mlp.fc2.bias.add_(1.0)  # type: ignore[union-attr, operator]
        assert (float((model(images()).logits - before).detach().abs().max()) > 1e-3) is reads


def test_a_head_that_transformers_trained_keeps_its_choice(tmp_path: Path) -> None:
    model = segmenter(**BLOCKS, compat="transformers")
    wanted = model(images()).logits
    model.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    values = json.loads(file.read_text())
    assert values["out_indices"] == [2, 3, 4, 5]
    del values["compat"]  # as transformers writes it
    file.write_text(json.dumps(values))
    ours = Data2VecVisionForSemanticSegmentation.from_pretrained(tmp_path / "theirs")
    assert ours.config.out_blocks == ours.config.feature_blocks == (0, 1, 2, 3)
    assert torch.allclose(ours(images()).logits, wanted, atol=1e-6)
    ours.save_pretrained(tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (written["out_blocks"], written["out_indices"]) == ([0, 1, 2, 3], [2, 3, 4, 5])
    for again in (
        Data2VecVisionForSemanticSegmentation.from_pretrained(tmp_path / "ours"),
        Data2VecVisionForSemanticSegmentation.from_pretrained(tmp_path / "ours", compat="transformers"),
        Data2VecVisionForSemanticSegmentation.from_pretrained(tmp_path / "ours", attn_implementation="eager"),
    ):
        assert torch.allclose(again(images()).logits, wanted, atol=1e-5)
    other = Data2VecVisionForSemanticSegmentation.from_pretrained(tmp_path / "ours", out_indices=(1, 3, 4, 5))
    assert other.config.feature_blocks == (1, 3, 4, 5)


def test_a_new_head_on_a_base_model_reads_what_is_named(tmp_path: Path) -> None:
    zoo.build("Data2VecVisionModel", **BLOCKS).save_pretrained(tmp_path)
    model = Data2VecVisionForSemanticSegmentation.from_pretrained(tmp_path)
    assert model.config.feature_blocks == (2, 3, 4, 5)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["out_indices"] == [4, 5, 6, 7]
    again = Data2VecVisionForSemanticSegmentation.from_pretrained(tmp_path / "saved")
    assert again.config.feature_blocks == again.config.out_indices == (2, 3, 4, 5)


def test_head_names_of_transformers_4_are_read(tmp_path: Path) -> None:
    """78 tensors of the heads were renamed in transformers 5, which loads the older ones as new."""
    model = segmenter(out_indices=(0, 1, 2, 3), num_labels=4, compat="transformers", auxiliary_concat_input=True)
    model.save_pretrained(tmp_path)
    published = read_file(tmp_path / "model.safetensors")
    old = {older_name(name): tensor for name, tensor in published.items()}
    renamed = set(old) - set(published)
    assert len(renamed) == 84  # 78, and six of the layer that auxiliary_concat_input adds
    assert {VISION.ours(name) for name in old} == set(model.state_dict())
    write_file(tmp_path / "model.safetensors", old)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert (report.missing, report.unexpected) == ([], [])
    assert torch.allclose(again(images()).logits, model(images()).logits, atol=1e-6)


def older_name(name: str) -> str:
    """transformers 4's spelling of a tensor of the segmentation heads."""
    head, _, rest = name.partition(".")
    if head not in ("decode_head", "auxiliary_head") or ("convolution" not in rest and "normalization" not in rest):
        return name
    rest = rest.replace("convolution", "conv").replace("normalization", "bn").replace("psp_bottleneck", "bottleneck")
    parts = rest.split(".")
    if parts[:2] == ["psp_modules", "blocks"]:
        parts = ["psp_modules", parts[2], "1", *parts[4:]]
    return ".".join([head, *parts])


# ---- images of any shape


@pytest.mark.parametrize("size", [(32, 64), (40, 24), (8, 32), (8, 8), (30, 45)])
def test_segmentation_takes_any_size(size: tuple[int, int]) -> None:
    model = segmenter(use_relative_position_bias=True)
    output = model(images(*size), torch.randint(0, 3, (2, *size)))
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    assert output.logits.shape == (2, 3, 4 * rows, 4 * columns)
    assert torch.isfinite(output.loss)
    model.train()
    model(images(*size, 1), torch.randint(0, 3, (1, *size))).loss.backward()  # one image: no variance to normalise by


def test_a_filled_up_image_is_scored_where_it_is() -> None:
    """The loss of 30x45 pixels is that of 32x48 with the rest left out."""
    model = segmenter()
    small, labels = images(30, 45), torch.randint(0, 3, (2, 30, 45))
    pad = (0, 3, 0, 2)
    whole = torch.nn.functional.pad(small, pad), torch.nn.functional.pad(labels, pad, value=255)
    assert torch.allclose(model(small, labels).loss, model(*whole).loss, rtol=1e-5)
    assert torch.equal(model(small).logits, model(whole[0]).logits)


def test_a_loss_of_nothing_is_nothing() -> None:
    assert segmenter()(images(), torch.full((2, 32, 32), 255)).loss == 0


def plain_bias(table: RelativePositionBias, rows: int, columns: int) -> Tensor:
    """One pair of patches at a time."""
    patches = [(y, x) for y in range(rows) for x in range(columns)]
    bias = torch.empty(table.table.shape[1], len(patches), len(patches))
    for i, (y, x) in enumerate(patches):
        for j, (v, u) in enumerate(patches):
            bias[:, i, j] = table.table[(y - v + rows - 1) * (2 * columns - 1) + x - u + columns - 1]
    return bias


def test_grids_that_are_not_square() -> None:
    """The reference swaps the axes of the table."""
    table = RelativePositionBias((3, 5), 2)
    swapped = RelativePositionBias((3, 5), 2, compatible=True)
    with torch.no_grad():
        swapped.table.copy_(table.table.normal_())
    wanted = plain_bias(table, 3, 5)
    assert torch.equal(table()[0, :, 1:, 1:], wanted)
    assert float((swapped()[0, :, 1:, 1:] - wanted).detach().abs().max()) > 1


@pytest.mark.parametrize("kind", ["use_relative_position_bias", "use_absolute_position_embeddings"])
def test_configurations_that_are_not_square(kind: str) -> None:
    """Tuples crash in the reference."""
    changes = {"image_size": (16, 48), "patch_size": (4, 8), kind: True}
    for name in ("Data2VecVisionModel", "Data2VecVisionForImageClassification", SEGMENTER):
        output = zoo.build(name, **changes)(images(16, 48))
        assert torch.isfinite(output[zoo.main_output(name)]).all()
    assert zoo.build("Data2VecVisionModel", **changes)(images(16, 48)).last_hidden_state.shape[1] == 4 * 6 + 1


@pytest.mark.parametrize("compat", [None, "transformers"])
def test_the_reference_at_grids_that_are_not_square(compat: str | None, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", minversion="5", reason="the oracle, a dev extra")
    model = zoo.build(
        "Data2VecVisionModel",
        image_size=(16, 64),
        use_relative_position_bias=True,
        use_absolute_position_embeddings=True,
        compat=compat,
    )
    model.save_pretrained(tmp_path)
    theirs = transformers.Data2VecVisionModel.from_pretrained(tmp_path).eval()
    same = torch.allclose(theirs(images(16, 64)).last_hidden_state, model(images(16, 64)).last_hidden_state, atol=1e-5)
    assert same is (compat is not None)


def test_other_sizes_ask_for_interpolation_of_absolute_positions() -> None:
    model = zoo.build("Data2VecVisionModel", use_absolute_position_embeddings=True)
    assert isinstance(model, Data2VecVisionModel)
    with pytest.raises(UserError, match="interpolate_pos_encoding"):
        model(images(48, 40))
    assert model(images(48, 40), interpolate_pos_encoding=True).last_hidden_state.shape[1] == 6 * 5 + 1


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match="four blocks"):
        segmenter(out_indices=(0, 1, 2))
    with pytest.raises(UserError, match="a block that is not there: the model has 4"):
        segmenter(out_indices=(0, 1, 2, 4))
    with pytest.raises(UserError, match="two classes"):
        segmenter(num_labels=1)(images(), torch.zeros(2, 32, 32, dtype=torch.long))
    with pytest.raises(UserError, match=r"\(batch, 3, height, width\)"):
        segmenter()(torch.randn(2, 1, 32, 32))
    with pytest.raises(UserError, match="use_mask_token"):
        zoo.build("Data2VecVisionModel")(images(), torch.ones(2, 16, dtype=torch.bool))
    with pytest.raises(UserError, match="labels holds 9"):
        segmenter()(images(), torch.full((2, 32, 32), 9))


def test_no_classes_are_no_head() -> None:
    model = zoo.build("Data2VecVisionForImageClassification", num_labels=0)
    assert model(images()).logits.shape == (2, 32)


def test_replacing_a_field_keeps_the_blocks() -> None:
    config = Data2VecVisionConfig(out_indices=(1, 2, 3, 4))
    config.architectures = [SEGMENTER]
    assert config.replace(num_labels=7).feature_blocks == (1, 2, 3, 4)
    assert config.replace(compat="transformers").feature_blocks == (1, 2, 3, 4)
    assert Data2VecVisionConfig(out_indices=(1, 2, 3, 4), compat="transformers").feature_blocks == (-1, 0, 1, 2)
