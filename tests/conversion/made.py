"""Files in the layouts of the original code, made from the dumps: same outer structure, names and kinds of objects."""

from __future__ import annotations

import argparse
import sys
import types
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

Dump = dict[str, Any]
MODALITIES = ["audio", "text", "vision"]


def read_dump(oracle_dir: Path, modality: str, version: int = 1) -> Dump:
    file = oracle_dir / f"v{version}_{modality}.pt"
    if not file.is_file():
        pytest.skip(f"{file.name} is not in the oracle folder")
    dump: Dump = torch.load(file, weights_only=True)
    return dump


def content(dump: Dump, modality: str) -> Dump:
    """The training checkpoint whose weights the dump holds."""
    if modality == "vision":
        args = argparse.Namespace(
            num_heads=dump["config"]["num_heads"], drop_path=0.0, imagenet_default_mean_and_std=True
        )
        optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
        scaler = {"scale": 65536.0, "growth_factor": 2.0}
        rest = {"optimizer": optimizer, "epoch": 799, "scaler": scaler, "args": args, "model_ema": dump["teacher"]}
        return {"model": OrderedDict(dump["student"]), **rest}
    model = OrderedDict(
        (n, dump["teacher"] if n.endswith("_ema") else dump["student"][n]) for n in dump["full_state_dict_keys"]
    )
    return {
        "args": None,
        "cfg": {"_name": None, "model": {**dump["config"], "diversity_weight": 0.1}, "task": {"normalize": True}},
        "model": model,
        "criterion": OrderedDict(),
        "optimizer_history": [{"optimizer_name": "FP16Optimizer", "num_updates": 400_000}],
        "task_state": {},
        "extra_state": {"epoch": 7, "best": 1.5},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
    }


def save(folder: Path, dump: Dump, modality: str) -> Path:
    path = folder / ("checkpoint.pth" if modality == "vision" else "checkpoint_last.pt")
    torch.save(content(dump, modality), path)
    return path


def ctc_content(dump: Dump, symbols: int = 7) -> Dump:
    """A fine-tuned CTC checkpoint: the model wrapped twice, its settings in ``w2v_args``."""
    inner = {n: t for n, t in dump["student"].items() if not n.startswith("final_proj")}
    model = OrderedDict((f"w2v_encoder.w2v_model.{name}", tensor) for name, tensor in inner.items())
    width = dump["student"]["mask_emb"].shape[0]
    model["w2v_encoder.proj.weight"] = torch.randn(symbols, width)
    model["w2v_encoder.proj.bias"] = torch.randn(symbols)
    settings = {"_name": "wav2vec_ctc", "w2v_args": argparse.Namespace(model=dump["config"], task={"normalize": True})}
    return {"args": None, "cfg": {"model": settings}, "model": model, "task_state": {"target_dictionary": None}}


def foreign(monkeypatch: pytest.MonkeyPatch, module: str, name: str, state: Any) -> Any:
    """An object of a class that is not installed, so that torch.save writes its name into the pickle."""
    for package in (module.partition(".")[0], module):
        if package not in sys.modules:
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    home = sys.modules[module]
    if not hasattr(home, name):
        setattr(home, name, type(name, (), {"__module__": module}))
    value = getattr(home, name)()
    value.__dict__.update(state)
    return value


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """The same names in the same order, the same types and bits."""
    return list(a) == list(b) and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)
