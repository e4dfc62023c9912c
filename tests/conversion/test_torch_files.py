"""What a torch file holds is read bit for bit, in every format torch has written since 0.4."""

from __future__ import annotations

import argparse
import io
import sys
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.pickles import Record
from data2vec.conversion.torch_files import read_torch_file

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
]
DTYPES += [torch.uint8, torch.bool, torch.complex64]


def same(ours: Any, theirs: Any) -> bool:
    """Equal values of equal types, tensors with equal strides."""
    if isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and ours.stride() == theirs.stride() and torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs


def content() -> dict[str, Any]:
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "tensors": {str(dtype): torch.ones(2, 3).to(dtype) for dtype in DTYPES},
        "views": [base, base[1:, ::2], base.t(), base[2]],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(3)).data,
        "plain": {"a": None, "b": [True, False, 1, -(2**40), 2.5, "text\n", b"raw"], 3: (1, (2, (3, 4, 5, 6)))},
        "sets": ({1, 2}, frozenset({3})),
        "big": 2**70,
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_torch_saved(tmp_path: Path, legacy: bool, protocol: int) -> None:
    path = tmp_path / "file.pt"
    torch.save(content(), path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    file = read_torch_file(path)
    assert same(file.content, content())
    assert file.records == {}


@pytest.mark.parametrize(
    "name", ["v1_audio", "v1_text", "v1_vision", "v2_audio", "v2_text", "v2_image", "masks", "schedules"]
)
def test_reads_dumps_as_torch_does(oracle_dir: Path, name: str) -> None:
    path = oracle_dir / f"{name}.pt"
    assert same(read_torch_file(path).content, torch.load(path, weights_only=True))


def test_tensors_share_storage_and_leave_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    base = torch.zeros(4)
    torch.save({"a": base, "b": base[1:3]}, path)
    before = path.read_bytes()
    read = read_torch_file(path).content
    read["b"].fill_(7)
    assert read["a"].tolist() == [0, 7, 7, 0]
    assert path.read_bytes() == before


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_classes_become_records(tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("omegaconf")
    node = type("AnyNode", (), {"__module__": "omegaconf"})
    module.AnyNode = node  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", module)
    value = node()
    value._val = 3
    saved = {
        "args": argparse.Namespace(lr=0.1, names=["x"]),
        "node": value,
        "device": torch.device("cpu"),
        "dtype": torch.int8,
    }
    torch.save(saved, tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)
    file = read_torch_file(tmp_path / "file.pt")
    args, node = file.content["args"], file.content["node"]
    assert isinstance(args, Record)
    assert str(args.symbol) == "argparse.Namespace"
    assert args.state == {"lr": 0.1, "names": ["x"]}
    assert isinstance(node, Record)
    assert node.state == {"_val": 3}
    assert file.records == {"argparse.Namespace": 1, "omegaconf.AnyNode": 1, "torch.device": 1}


def test_containers_and_numpy_values(tmp_path: Path) -> None:
    saved = {
        "ordered": OrderedDict(a=1, b=2),
        "default": defaultdict(list, {"k": [1]}),
        "count": Counter("aab"),
        "scalar": np.float64(2.5),
        "big_endian": np.arange(3, dtype=">i4"),
        "array": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "size": torch.Size([2, 3]),
        "bytes": bytearray(b"abc"),
    }
    torch.save(saved, tmp_path / "file.pt")
    read = read_torch_file(tmp_path / "file.pt").content
    assert read["ordered"] == {"a": 1, "b": 2}
    assert read["default"] == {"k": [1]}
    assert read["count"] == {"a": 2, "b": 1}
    assert read["scalar"] == 2.5
    assert read["big_endian"].value.tolist() == [0, 1, 2]
    assert read["array"].value.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read["size"] == (2, 3)
    assert read["bytes"] == b"abc"


def test_state_dict_with_metadata_and_optimizer(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "file.pt")
    read = read_torch_file(tmp_path / "file.pt").content
    assert same(read["model"], dict(model.state_dict()))
    assert same(read["optimizer"]["state"][0], optimizer.state_dict()["state"][0])


def test_unaligned_entries_are_copied(tmp_path: Path) -> None:
    """Zip tools other than torch do not align: the values are the same."""
    torch.save({"w": torch.arange(5.0), "odd": torch.ones(1, dtype=torch.int8)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert read_torch_file(tmp_path / "b.pt").content["w"].tolist() == [0, 1, 2, 3, 4]


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, body in entries.items():
            file.writestr(name, body)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"hello world", "not written by torch.save"),
        (b"\x80\x02]q\x00.", "not written by torch.save"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 300, "tar"),
        (zipped({"a/x": b""}), "no data.pkl"),
        (zipped({"a/data.pkl": b"\x80\x02}.", "a/code/f.py": b""}), "TorchScript"),
        (zipped({"a/data.pkl": b"\x80\x02}.", "a/byteorder": b"big"}), "byte order"),
        (zipped({"a/data.pkl": b"\x80\x02}." + b"\0" * 1000}, zipfile.ZIP_DEFLATED), "compressed"),
    ],
    ids=["empty", "text", "pickle", "tar", "zip", "torchscript", "byteorder", "deflate"],
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, body: bytes, words: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(body)
    with pytest.raises(CheckpointError, match=words) as raised:
        read_torch_file(path)
    assert str(path) in str(raised.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save({"w": torch.arange(40.0), "n": 3}, buffer, _use_new_zipfile_serialization=not legacy)
        whole = buffer.getvalue()
        for length in range(0, len(whole), 7):
            (tmp_path / "cut.pt").write_bytes(whole[:length])
            with pytest.raises(CheckpointError):
                read_torch_file(tmp_path / "cut.pt")
