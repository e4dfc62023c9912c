"""One checkpoint of any layout, in our terms: configuration, tensors, teacher and heads, and an account of it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from data2vec.configuration import PretrainedConfig
from data2vec.conversion.architecture import Kind
from data2vec.conversion.building import MODELS, compare, copy_into, empty_model, fill, find_class
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.report import Report
from data2vec.modeling import PreTrainedModel

PRETRAINING = ("teacher.", "predictor.")
_BASE = ("frontend.", "encoder.", "mask_embedding", "norm.", "pooler.", "adapter.")
_HEADS = {  # a head's tensor -> the rest of the class's name
    ("audio", "lm_head.weight"): "ForCTC",
    ("text", "lm_head.dense.weight"): "ForMaskedLM",
    ("text", "classifier.dense.weight"): "ForSequenceClassification",
    ("vision", "classifier.weight"): "ForImageClassification",
}


@dataclass
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        kind: ``audio``, ``text`` or ``vision``, and the version of data2vec.
        config: the model's.
        tensors: the base model's under our names, a task head's under the published ones (``lm_head...``,
            ``classifier...``), the pre-training head's (``predictor...``) and the EMA teacher's (``teacher.<base
            name>``). Views of the mapped file.
        settings: what the original stored about the run, as plain values.
        report: the account.
        content: the raw content of the file, for what processors need (a dictionary).
    """

    kind: Kind
    config: PretrainedConfig
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    report: Report
    content: Any = field(default=None, repr=False)

    @property
    def modality(self) -> str:
        """``audio``, ``text`` or ``vision``."""
        return self.kind[0]

    @property
    def base(self) -> dict[str, Tensor]:
        """Tensors of the model without head."""
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(_BASE)}

    @property
    def head(self) -> dict[str, Tensor]:
        """Tensors of a task's head."""
        return {name: t for name, t in self.tensors.items() if not name.startswith((*_BASE, *PRETRAINING))}

    @property
    def predictor(self) -> dict[str, Tensor]:
        """Tensors of the pre-training head or decoder, under the names that the objective gives them."""
        found = _below(self.tensors, "predictor.")
        return _below(found, "0.") if found.keys() == {"0.weight", "0.bias"} else found  # fairseq text, head_layers 1

    @property
    def teacher(self) -> dict[str, Tensor]:
        """Tensors of the EMA teacher under the base model's names."""
        return _below(self.tensors, "teacher.")

    @property
    def model_class(self) -> str:
        """Name of the class that takes all tensors but those of pre-training."""
        base = MODELS[self.kind].__name__
        if not self.head:
            return base
        for (modality, mark), rest in _HEADS.items():
            if modality == self.modality and mark in self.tensors:
                return base.removesuffix("Model") + rest
        if stored := self.config.architectures:
            return stored[0]
        raise CheckpointError(f"{self.report.source}: a head that no class has, {sorted(self.head)[0]}")

    def published(self) -> dict[str, Tensor]:
        """Base model and task head under the names on disk; for data2vec 1 those of transformers 5.x."""
        table = MODELS[self.kind].names
        prefix = f"{table.prefix}." if self.head else ""
        return {table.published(prefix + name): tensor for name, tensor in self.base.items()} | self.head

    def model(self) -> PreTrainedModel:
        """Build the model, in eval mode, on the tensors of the file.

        Raises:
            CheckpointError: tensors are missing, left over or of other shapes than the configuration's.
        """
        kind = find_class(self.model_class) if self.head else MODELS[self.kind]
        weights = {kind.names.ours(name) or "": tensor for name, tensor in self.published().items()}
        model = empty_model(kind, self.config, weights)
        fill(model, weights, self.model_class)
        return model.eval()

    def check(self) -> None:
        """Hold the base model's tensors against an empty model of the configuration.

        Raises:
            CheckpointError: tensors are missing, left over or of other shapes.
        """
        compare(empty_model(MODELS[self.kind], self.config, self.base).state_dict(), self.base, self.report.source)

    def restore(self, objective: nn.Module) -> list[str]:
        """Continue pre-training: copy student, and where the file has them teacher and head, into an objective.

        Args:
            objective: a `Data2VecObjective` or `Data2Vec2Objective`.

        Returns:
            What the file does not have: ``teacher`` (it becomes a copy of the student); ``head`` (``decoder``) and
            ``mask embedding``, which stay as the objective initialised them.

        Raises:
            CheckpointError: other shapes than the objective's.
        """
        student = objective.get_submodule("student")
        copy_into(student, self.base, "student")
        copy_into(objective.get_submodule("teacher.encoder"), self.base | self.teacher, "teacher")
        head = "head" if self.kind[1] == 1 else "decoder"
        if self.predictor:
            copy_into(objective.get_submodule(head), self.predictor, head)
        found = {"teacher": self.teacher, head: self.predictor}
        if "mask_embedding" in student.state_dict():
            found["mask embedding"] = {n: t for n, t in self.base.items() if n == "mask_embedding"}
        return [name for name, tensors in found.items() if not tensors]


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
