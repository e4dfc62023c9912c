"""Run by another Python, which has transformers 4: build the models asked for, save them, and write what they return.

Usage: ``python dump_transformers4.py cases.json folder``. Each case of the file is a dict with `id`, `name`, `config`,
`fields`, `attention`, `batch` and `labels` (names of tensors in ``inputs.pt``), `call` (more arguments), `prune`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers


def perturb(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.1 if parameter.dim() < 2 else 0.05))


def plain(value: Any) -> Any:
    """Tensors, and tuples of them, of an output."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return tuple(map(plain, value)) if isinstance(value, tuple) else None


def dump(case: dict[str, Any], inputs: dict[str, torch.Tensor], folder: Path) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, case["config"])(**case["fields"])
    model = getattr(transformers, case["name"])._from_config(config, attn_implementation=case["attention"])
    perturb(model)
    model.eval()
    if case["prune"]:
        model.prune_heads({int(layer): heads for layer, heads in case["prune"].items()})
    target = folder / case["id"]
    model.save_pretrained(target, safe_serialization=case["attention"] == "sdpa")  # else a .bin file
    batch = {name: inputs[key] for name, key in case["batch"].items()}
    labels = {name: inputs[key] for name, key in case["labels"].items()}
    with torch.no_grad():
        output = model(**batch, **case["call"])
    kept = {name: plain(value) for name, value in output.items()}
    if labels:
        model.train()  # the configurations switch randomness off
        kept["loss"] = model(**batch, **labels).loss.detach()
        model.double()  # so that small gradients are no rounding
        exact = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
        model(**exact, **labels).loss.backward()
        kept["gradients"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    torch.save({name: value for name, value in kept.items() if value is not None}, target / "output.pt")


def main() -> None:
    assert transformers.__version__.startswith("4."), transformers.__version__
    cases, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    inputs = torch.load(folder / "inputs.pt", weights_only=True)
    for case in cases:
        dump(case, inputs, folder)
    (folder / "version").write_text(transformers.__version__)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
