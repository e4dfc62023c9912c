"""Our folders, and files of the original implementations: the same outer structure, names, order, kinds of objects."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data2vec.conversion.checkpoint import PRETRAINING, Checkpoint
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.layouts import layout_of
from data2vec.conversion.loading import REPORT_FILE
from data2vec.conversion.originals import CTC_MODEL, MULTI_MODEL, VISION, Original
from data2vec.conversion.tables import fuse_qkv
from data2vec.conversion.tensor_files import write_safetensors, write_torch_file
from data2vec.conversion.values import Settings
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.nn.positions import relative_position_index
from data2vec.weights import PRETRAINING_FILE


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, pretraining: bool = True) -> None:
    """Write ``config.json``, ``model.safetensors``, the report, and with `pretraining` teacher and pre-training head.

    The first two are what transformers 5.x reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = checkpoint.published()
    checkpoint.config.architectures = [checkpoint.model_class]
    checkpoint.config.dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    checkpoint.config.save_pretrained(folder)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    kept = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(PRETRAINING)}
    (folder / PRETRAINING_FILE).unlink(missing_ok=True)
    if kept and pretraining:
        write_safetensors(folder / PRETRAINING_FILE, kept)
    elif kept:
        why = "transformers has no place for them (--to data2vec keeps them)"
        checkpoint.report.dropped["(teacher, prediction head)"] = why
    account = {"report": checkpoint.report.to_dict(), "stored": checkpoint.settings}
    text = json.dumps(account, indent=1)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")


def write_original(checkpoint: Checkpoint, path: Path) -> None:
    """Write a ``.pt`` that fairseq loads (speech, text) or a ``.pth`` that the BEiT fork loads (images).

    Raises:
        CheckpointError: the model has something for which the original has no place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_torch_file(path, original_content(checkpoint))


def original_content(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `write_original` saves."""
    layout = layout_of(*checkpoint.kind, checkpoint.config, checkpoint.predictor)
    model: dict[str, Any] = _renamed(layout, _student(checkpoint))
    model |= _recomputed(checkpoint, model)
    teacher = _teacher(checkpoint, layout, model)
    model = {_wrap(name, checkpoint): model[name] for name in sorted(model, key=lambda name: _order(layout, name))}
    if layout is VISION:
        args = argparse.Namespace(**_mapping(checkpoint.settings.get("args")) or _vision_args(checkpoint))
        return {"model": model, **({"model_ema": teacher} if teacher else {}), "epoch": 0, "args": args}
    if teacher:
        model[_wrap(layout.ema, checkpoint)] = teacher
    return {
        "args": None,
        "cfg": _mapping(checkpoint.settings.get("cfg")) or _fairseq_settings(checkpoint),
        "model": model,
        "criterion": None,
        "optimizer_history": [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}],
        "task_state": {},
        "extra_state": {},
        "last_optimizer_state": None,
    }


def _student(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Base model, heads and predictor; what only transformers' layout has is folded in or left out."""
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("teacher.")}
    if checkpoint.modality == "text":
        for name in ("pooler.weight", "pooler.bias"):
            if tensors.pop(name, None) is not None:
                checkpoint.report.dropped[name] = "fairseq's model has no pooler"
    _fold_types(tensors, checkpoint, "")
    return tensors


def _fold_types(tensors: dict[str, Tensor], checkpoint: Checkpoint, owner: str) -> None:
    """Add the one token type to the positions: fairseq's model has none."""
    types = tensors.pop("encoder.token_types.weight", None)
    if types is not None and types.count_nonzero() and "encoder.positions.weight" in tensors:
        if len(types) > 1:
            raise CheckpointError(f"{len(types)} token types: fairseq's model has none")
        tensors["encoder.positions.weight"] = tensors["encoder.positions.weight"] + types
        why = "with the one token type added, which fairseq lacks"
        checkpoint.report.made[f"{owner}encoder.positions.weight"] = why


def _renamed(layout: Original, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    renamed = {}
    for name, tensor in (fuse_qkv(tensors) if layout.table.fused else tensors).items():
        theirs = layout.table.original(name)
        if theirs is None:
            raise CheckpointError(f"{name}: {layout.name} has no place for it")
        # theirs: (layers, 1, heads, 1, 1)
        renamed[theirs] = tensor.unsqueeze(1) if name == "encoder.alibi_scale" else tensor
    return renamed


def _recomputed(checkpoint: Checkpoint, model: Mapping[str, Any]) -> dict[str, Tensor]:
    """Buffers that the original keeps and we compute."""
    if checkpoint.kind == ("text", 1):
        tied = "encoder.lm_head.dense.weight" in model
        words = {"encoder.lm_head.weight": model["encoder.sentence_encoder.embed_tokens.weight"]} if tied else {}
        return {"encoder.sentence_encoder.version": torch.Tensor([3]), **words}
    made = {}
    if isinstance(checkpoint.config, Data2VecVisionConfig):
        for name in model:
            if name.endswith("relative_position_bias_table"):
                index = relative_position_index(*checkpoint.config.grid)
                made[name.replace("_bias_table", "_index")] = index.clone()
    return made


def _teacher(checkpoint: Checkpoint, layout: Original, student: Mapping[str, Any]) -> dict[str, Tensor]:
    """The teacher under the names of its nested dict.

    Data2vec 1 for speech and text: what ours does not average is the student's, in the teacher's type.
    """
    ours = {name.removeprefix("teacher."): t for name, t in checkpoint.tensors.items() if name.startswith("teacher.")}
    if not ours:
        return {}
    _fold_types(ours, checkpoint, "teacher.")
    nested = bool(layout.ema_prefix)
    for name in [name for name in ours if nested and not name.startswith(_AVERAGED)]:
        del ours[name]
        checkpoint.report.dropped[f"teacher.{name}"] = "the original's teacher takes the student's"
    given = _renamed(layout, ours)
    given |= {n: t for n, t in student.items() if n.endswith("_index") and layout is VISION}
    if _only_blocks(checkpoint):
        given = {name: tensor for name, tensor in given.items() if name.startswith("blocks.")}
    dtype = next(iter(given.values())).dtype
    names = [name for name in student if name.startswith(layout.ema_prefix)] if nested else list(given)
    prefix = "blocks." if _only_blocks(checkpoint) else layout.ema_prefix
    whole = {}
    for name in sorted(names, key=lambda name: _order(layout, name)):
        tensor = given.get(name, student.get(name))
        assert tensor is not None
        whole[name.removeprefix(prefix)] = tensor.to(dtype) if name not in given else tensor
    return whole


def _only_blocks(checkpoint: Checkpoint) -> bool:
    """Whether the original averages the shared blocks only, and names them by their number."""
    stored = Settings(checkpoint.settings, ("cfg.model",)).flag("ema_encoder_only")
    return checkpoint.kind[1] == 2 and (checkpoint.modality == "text" if stored is None else stored)


_AVERAGED = ("encoder.", "frontend.words.")  # what fairseq's nested dicts of data2vec 1 can hold


def _order(layout: Original, name: str) -> tuple[int, ...]:
    if name.endswith("sentence_encoder.version"):
        return (-1,)
    if name.endswith("relative_position_index"):  # right after its table
        return (*layout.table.order(name.replace("_index", "_bias_table")), 1)
    return layout.table.order(name)


def _wrap(name: str, checkpoint: Checkpoint) -> str:
    """Fine-tuned models stand inside another, beside their head."""
    if checkpoint.modality == "audio" and "lm_head.weight" in checkpoint.tensors:
        return name if name.startswith("w2v_encoder.") else CTC_MODEL + name
    if checkpoint.kind[1] == 2 and checkpoint.head:
        return MULTI_MODEL + name if name.startswith(("modality_encoders.", "blocks.", "_ema")) else name
    return name


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _fairseq_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings that fairseq needs to build the model, for a model that did not come from there."""
    if checkpoint.kind[1] == 2:
        raise CheckpointError("a data2vec 2 model that did not come from fairseq does not go there: --to data2vec")
    c: Any = checkpoint.config
    if checkpoint.modality == "text":
        encoder = {
            "embed_dim": c.hidden_size, "ffn_embed_dim": c.intermediate_size, "layers": c.num_hidden_layers,
            "attention_heads": c.num_attention_heads, "learned_pos": True,
        }  # fmt: skip
        transformer = {
            "dropout": c.hidden_dropout_prob, "attention_dropout": c.attention_probs_dropout_prob, "encoder": encoder,
            "layernorm_embedding": True, "no_scale_embedding": True, "max_source_positions": c.max_length,
        }  # fmt: skip
        model = {"_name": "data2vec_text", "max_positions": c.max_length, "head_layers": 2, "transformer": transformer}
        return {"model": model, "task": {"_name": "masked_lm"}}
    layers = list(zip(c.conv_dim, c.conv_kernel, c.conv_stride, strict=True))
    pretrained = {
        "_name": "data2vec_audio", "extractor_mode": "layer_norm", "encoder_layers": c.num_hidden_layers,
        "encoder_embed_dim": c.hidden_size, "encoder_ffn_embed_dim": c.intermediate_size,
        "encoder_attention_heads": c.num_attention_heads, "dropout": c.hidden_dropout,
        "attention_dropout": c.attention_dropout, "activation_dropout": c.activation_dropout,
        "encoder_layerdrop": c.layerdrop, "dropout_input": c.feat_proj_dropout, "conv_feature_layers": str(layers),
        "conv_bias": c.conv_bias, "conv_pos": c.conv_pos_kernel_size * c.num_conv_pos_embeddings,
        "conv_pos_groups": c.num_conv_pos_embedding_groups, "pos_conv_depth": c.num_conv_pos_embeddings,
    }  # fmt: skip
    task = {"_name": "audio_pretraining", "normalize": True}
    if "lm_head.weight" not in checkpoint.tensors:
        return {"model": pretrained, "task": task}
    return {
        "model": {"_name": "wav2vec_ctc", "w2v_args": {"model": pretrained, "task": task}},
        "task": {"_name": "audio_finetuning", "normalize": True},
    }


def _vision_args(checkpoint: Checkpoint) -> dict[str, Any]:
    c: Any = checkpoint.config
    return {
        "input_size": c.image_shape[0], "rel_pos_bias": c.use_relative_position_bias,
        "shared_rel_pos_bias": c.use_shared_relative_position_bias, "abs_pos_emb": c.use_absolute_position_embeddings,
        "layer_scale_init_value": c.layer_scale_init_value, "drop_path": c.drop_path_rate,
    }  # fmt: skip
