"""The renames are bijective, and every one of them is the transcription of the original's list."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.conversion.made import read_dump

from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.processors import ctc_vocabulary, read_dictionary, text_vocabulary, write_dictionary
from data2vec.conversion.tables import BEIT, FAIRSEQ_AUDIO, FAIRSEQ_TEXT, Table, fuse_qkv, split_qkv
from data2vec.conversion.tensor_files import read_safetensors, write_safetensors

TABLES = {"audio": FAIRSEQ_AUDIO, "text": FAIRSEQ_TEXT, "vision": BEIT}


@given(
    st.sampled_from(list(TABLES.values())), st.data(), st.integers(0, 999), st.sampled_from(["", ".weight", ".bias"])
)
def test_rows_are_bijective(table: Table, data: st.DataObject, layer: int, leaf: str) -> None:
    row, _ = data.draw(st.sampled_from(list(table.rows)))
    name = row.replace("{}", str(layer)) + leaf
    ours = table.ours(name)
    assert ours is not None
    assert table.original(ours) == name
    assert table.upgrade(name) == name


@pytest.mark.parametrize("modality", TABLES)
def test_every_name_of_the_dumps_comes_back_in_order(oracle_dir: Path, modality: str) -> None:
    table = TABLES[modality]
    names = [n for n in read_dump(oracle_dir, modality)["student"] if not table.why_dropped(n)]
    assert [table.original(table.ours(name) or "") for name in names] == names
    assert sorted(sorted(names), key=table.order) == names


def test_unknown_names_have_no_row() -> None:
    for table in TABLES.values():
        assert table.ours("quantizer.vars") is None
        assert table.ours("encoderx.layers.0.fc1.weight") is None
        assert table.original("teacher.weight") is None


@given(st.integers(1, 5), st.booleans(), st.booleans())
def test_qkv_is_split_and_fused_without_loss(width: int, weight: bool, bias: bool) -> None:
    stem = "encoder.blocks.3.attention.qkv."
    fused = {stem + "weight": torch.randn(3 * width, width)} if weight else {}
    fused |= {stem + "bias": torch.randn(3 * width)} if bias else {}
    parts = {name: part for fuse, tensor in fused.items() for name, part in split_qkv(fuse, tensor).items()}
    assert len(parts) == 3 * len(fused)
    back = fuse_qkv(parts | {"encoder.blocks.3.attention.out_proj.weight": torch.ones(1)})
    assert back.keys() == {*fused, "encoder.blocks.3.attention.out_proj.weight"}
    assert all(torch.equal(back[name], tensor) for name, tensor in fused.items())


def test_biases_of_q_and_v_alone_stay_apart() -> None:
    names = ["encoder.blocks.0.attention.q_proj.bias", "encoder.blocks.0.attention.v_proj.bias"]
    assert fuse_qkv({name: torch.ones(2) for name in names}).keys() == set(names)


dtypes = st.sampled_from(
    [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.float64]
)
shapes = st.lists(st.integers(0, 4), max_size=3)


@given(st.dictionaries(st.text("abc.é", min_size=1, max_size=6), st.tuples(dtypes, shapes), min_size=1, max_size=6))
def test_safetensors_bytes_are_those_of_the_library(tmp_path_factory: pytest.TempPathFactory, spec: dict) -> None:
    folder = tmp_path_factory.mktemp("s")
    tensors = {name: torch.ones(shape).to(dtype) for name, (dtype, shape) in spec.items()}
    write_safetensors(folder / "ours", tensors, {"format": "pt"})
    save_file(tensors, folder / "theirs", {"format": "pt"})
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    assert load_file(folder / "ours").keys() == read_safetensors(folder / "ours").keys()


def test_views_are_written_as_what_they_show(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    write_safetensors(tmp_path / "f", {"t": base.t(), "s": base[:, 1]})
    read = read_safetensors(tmp_path / "f")
    assert torch.equal(read["t"], base.t())
    assert torch.equal(read["s"], base[:, 1])


def test_dictionaries(tmp_path: Path) -> None:
    path = tmp_path / "dict.ltr.txt"
    path.write_text("| 94802\nE 51860\n<unk> 0 #fairseq:overwrite\n' 3\n", encoding="utf-8")
    symbols = read_dictionary(path)
    assert symbols == ["<s>", "<pad>", "</s>", "<unk>", "|", "E", "'"]
    vocabulary = ctc_vocabulary(symbols)
    assert vocabulary["<pad>"] == 0
    assert vocabulary["<s>"] == 1
    write_dictionary(vocabulary, path)
    assert ctc_vocabulary(read_dictionary(path)) == vocabulary
    for text, words in {"E\n": "line 1", "E 5\nT x\n": "line 2", "E 1\nE 2\n": "twice", "": ""}.items():
        path.write_text(text, encoding="utf-8")
        if words:
            with pytest.raises(CheckpointError, match=words):
                read_dictionary(path)


def test_text_symbols_become_tokens_again(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text('{"Ġthe": 262, "a": 64, "<|endoftext|>": 50256}', encoding="utf-8")
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "262", "64", "madeupword0000"]
    vocabulary = text_vocabulary(symbols, tmp_path / "encoder.json")
    assert list(vocabulary) == ["<s>", "<pad>", "</s>", "<unk>", "Ġthe", "a", "madeupword0000", "<mask>"]
    assert list(vocabulary.values()) == list(range(8))
    with pytest.raises(CheckpointError, match="no token number 5"):
        text_vocabulary([*symbols, "5"], tmp_path / "encoder.json")
