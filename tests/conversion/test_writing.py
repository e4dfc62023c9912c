"""Files are written tensor by tensor from mapped ones, and nothing is lost by taking pages out of memory."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data2vec.conversion.tables import fuse_qkv
from data2vec.conversion.tensor_files import read_safetensors, release, write_torch_file
from data2vec.conversion.torch_files import read_torch_file

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are released on Linux only")


def resident() -> int:
    """Bytes of mapped files that are in this process's memory."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def mapped(folder: Path, sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    """Tensors of a file, none of it in memory yet."""
    tensors = {name: torch.arange(size // 4, dtype=torch.float32).reshape(16, -1) for name, size in sizes.items()}
    save_file(tensors, folder / "source.safetensors")
    return read_safetensors(folder / "source.safetensors")


def test_the_bytes_are_those_of_torch_save(tmp_path: Path) -> None:
    base = torch.arange(5000.0)
    content = {"a": base, "view": base[3:9], "empty": torch.ones(0), "rest": [1, "x", torch.ones(3, dtype=torch.bool)]}
    write_torch_file(tmp_path / "file.pt", content)
    expected = io.BytesIO()
    torch.save(content, expected)
    assert (tmp_path / "file.pt").read_bytes() == expected.getvalue()
    assert [file.name for file in tmp_path.iterdir()] == ["file.pt"]


@linux
def test_writing_keeps_one_tensor_in_memory(tmp_path: Path) -> None:
    tensors = mapped(tmp_path, {str(i): 8 * MIB for i in range(8)})
    before = resident()
    write_torch_file(tmp_path / "file.pt", {"model": tensors})
    assert resident() - before < 4 * MIB
    again = read_torch_file(tmp_path / "file.pt").content["model"]
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


@linux
def test_fusing_leaves_the_parts_on_disk(tmp_path: Path) -> None:
    names = [f"encoder.blocks.0.attention.{letter}_proj.weight" for letter in "qkv"]
    tensors = mapped(tmp_path, dict.fromkeys(names, 8 * MIB))
    before = resident()
    fused = fuse_qkv(tensors)["encoder.blocks.0.attention.qkv.weight"]
    assert resident() - before < 4 * MIB
    assert torch.equal(fused, torch.cat(list(tensors.values())))


def test_release_loses_nothing(tmp_path: Path) -> None:
    """Memory of our own has no file to come back from, nor has a tensor that was changed."""
    own, tensors = torch.ones(MIB), mapped(tmp_path, {"a": MIB, "b": MIB})
    read_only = tensors["b"].clone()
    tensors["a"][7] = -1.0
    expected = tensors["a"].clone()
    for tensor in (own, *tensors.values(), tensors["a"].t(), torch.ones(0), torch.ones(3)):
        release(tensor)
    assert torch.equal(own, torch.ones(MIB))
    assert torch.equal(tensors["a"], expected)
    assert torch.equal(tensors["b"], read_only)
