"""Cases that the original TensorFlow classes wrote, and models on them. Imports TensorFlow only when called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def cases_in(folder: Path) -> list[Path]:
    """Case folders: in ``folder/tf`` when there is one, else in `folder`."""
    folder = tf_folder(folder)
    folder = folder / "cases" if (folder / "cases").is_dir() else folder
    return sorted(case.parent for case in folder.glob("*/inputs.npz"))


def tf_folder(folder: Path) -> Path:
    return folder / "tf" if (folder / "tf").is_dir() else folder


def arrays(file: Path) -> Arrays:
    return dict(np.load(file)) if file.is_file() else {}


@dataclass
class Case:
    """One case: weights in PyTorch's names, inputs, and what both originals gave for them."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return values

    @cached_property
    def inputs(self) -> Arrays:
        return arrays(self.folder / "inputs.npz")

    @cached_property
    def torch_outputs(self) -> Arrays:
        return arrays(self.folder / "pt_outputs.npz")

    @cached_property
    def tf_outputs(self) -> Arrays:
        return arrays(self.folder / "tf_outputs.npz")

    @property
    def is_base(self) -> bool:
        return self.config["architectures"][0] == "Data2VecVisionModel"

    @property
    def chains_its_pools(self) -> bool:
        """Defect D1 of the original: each pooling reads the previous one's output. One scale alone is right."""
        return "SemanticSegmentation" in self.config["architectures"][0] and len(self.config["pool_scales"]) > 1

    @cached_property
    def model(self) -> Any:
        """Our TF model, strictly loaded; shared by the tests of a case, which leave it as it is."""
        return self.load()

    def load(self, folder: Path | None = None) -> Any:
        import data2vec

        kind = getattr(data2vec, "TF" + self.config["architectures"][0])
        pools = any(name.endswith("pooler_output") for name in {**self.tf_outputs, **self.torch_outputs})
        options = {"add_pooling_layer": pools} if self.is_base else {}
        return kind.from_pretrained(folder or self.folder, **options)

    def calls(self) -> Iterator[tuple[str, Arrays]]:
        """(name in the dumps, inputs beside the pixels)."""
        recorded = {name.split("/")[0] for name in {**self.tf_outputs, **self.torch_outputs}}
        for call in ("plain", "masked", "labels", "labels_ignore"):
            name = {"plain": None, "masked": "bool_masked_pos"}.get(call, call)
            if call in recorded:
                yield call, {} if name is None else {name.removesuffix("_ignore"): self.inputs[name]}

    def run(self, **inputs: Any) -> Arrays:
        """Every output of a call by its name in the dumps."""
        outputs = self.model(self.inputs["pixel_values"], output_attentions=True, output_hidden_states=True, **inputs)
        return flat(outputs)


def flat(outputs: Any) -> Arrays:
    """``hidden_states.3`` and the like -> array, of a TF or of a PyTorch output."""
    found: Arrays = {}
    for name, value in outputs.items():
        parts = {f"{name}.{i}": part for i, part in enumerate(value)} if isinstance(value, tuple) else {name: value}
        found.update({key: as_array(part) for key, part in parts.items()})
    return found


def as_array(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


def gradients(model: Any, loss: Any, tape: Any) -> Arrays:
    """d loss / d weight as PyTorch lays it out, by our names; those that the loss does not reach left out."""
    from data2vec.keras.backend import tf
    from data2vec.keras.weights import slots

    trainable = {name: slot for name, slot in slots(model).items() if slot.variable.trainable}
    found = tape.gradient(loss, [slot.variable.value for slot in trainable.values()])
    pairs = zip(trainable.items(), found, strict=True)
    return {
        name: slot.to_stored(tf.convert_to_tensor(gradient).numpy())
        for (name, slot), gradient in pairs
        if gradient is not None
    }


def worst(ours: Any, theirs: Any) -> float:
    """Largest absolute difference; shapes must agree."""
    ours, theirs = as_array(ours), as_array(theirs)
    assert ours.shape == theirs.shape, f"{ours.shape} against {theirs.shape}"
    return float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
