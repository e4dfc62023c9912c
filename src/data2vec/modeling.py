"""What every model class shares: building, loading, saving, tying, checkpointing of activations."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from data2vec.configuration import PretrainedConfig
from data2vec.errors import UserError
from data2vec.models.names import NameTable
from data2vec.nn.attention import Attention
from data2vec.nn.transformer import Transformer
from data2vec.weights import WEIGHT_PATTERNS, read_weights, write_weights

logger = logging.getLogger("data2vec")


@dataclass
class LoadReport:
    """What `from_pretrained` did with the names of a checkpoint (published spelling).

    Attributes:
        missing: in the model, not in the file: newly initialised.
        unexpected: in the file, not in the model: left out.
        mismatched: (name, shape in the file, shape in the model): newly initialised, with `ignore_mismatched_sizes`.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)


class PreTrainedModel(nn.Module):
    """Base of all models.

    A subclass names its configuration, its table of tensor names and how a module is initialised.

    Attributes:
        config_class: the configuration's class.
        names: tensor names on disk.
        main_input_name: the batch entry that the model reads.
        tied: our parameter name -> our name of the parameter that it shares.
        _no_split_modules: classes whose weights have to be on one device, and present when they run: some read the
            weights of a submodule without calling it. Accelerate's name, for its `preload_module_classes` too.
    """

    _no_split_modules: ClassVar[list[str]] = ["Block", "ConvLayer", "PositionalConv", "VisionFrontend"]

    config_class: ClassVar[type[PretrainedConfig]]
    names: ClassVar[NameTable]
    main_input_name: ClassVar[str]
    tied: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise UserError(
                f"{type(self).__name__} needs a {self.config_class.__name__}, not a {type(config).__name__}"
            )
        self.config: Any = config

    # ---- initialisation

    def init_module(self, module: nn.Module) -> None:
        """Initialise the parameters that `module` itself owns. Subclasses implement."""
        raise AssertionError(f"{type(self).__name__} does not say how to initialise")

    def init_weights(self) -> None:
        """Remove pruned heads, initialise every parameter, then tie. Ends a subclass's ``__init__``."""
        self._prune(self.config.pruned_heads)
        self.apply(self.init_module)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make the parameters of `tied` one, unless the configuration unties them."""
        if self.config.tie_word_embeddings:
            for name, source in self.tied.items():
                owner, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(owner), leaf, self.get_parameter(source))

    # ---- the model around

    @property
    def base_model_prefix(self) -> str:
        """Attribute under which a model with a head keeps its base model."""
        return self.names.prefix

    @property
    def base_model(self) -> PreTrainedModel:
        """The model without its head; a base model is its own."""
        base = getattr(self, self.names.prefix, self)
        assert isinstance(base, PreTrainedModel)
        return base

    @property
    def dtype(self) -> torch.dtype:
        """Type of the first floating-point parameter."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.parameters()).device

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of parameters, tied ones once; `exclude_embeddings` leaves tables of tokens and positions out."""
        tables = {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)} if exclude_embeddings else ()
        counted = (p for p in self.parameters() if id(p) not in tables)
        return sum(p.numel() for p in counted if p.requires_grad or not only_trainable)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them.

        Args:
            gradient_checkpointing_kwargs: only ``{"use_reentrant": False}``, the way that is used here.
        """
        if gradient_checkpointing_kwargs and dict(gradient_checkpointing_kwargs) != {"use_reentrant": False}:
            raise UserError(f"gradient_checkpointing_kwargs={gradient_checkpointing_kwargs}: only use_reentrant=False")
        self._set_checkpointing(True)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Newer name of `gradient_checkpointing_enable`; of its choices only every layer, kept on its device."""
        if every_n_layers != 1 or offload:
            raise UserError("checkpointing is of every layer and on its device: every_n_layers=1, offload=False")
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self._set_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether blocks recompute their activations."""
        return any(stack.gradient_checkpointing for stack in self._stacks())

    def _set_checkpointing(self, on: bool) -> None:
        for stack in self._stacks():
            stack.gradient_checkpointing = on

    def freeze_base_model(self) -> None:
        """Train the head only."""
        self.base_model.requires_grad_(False)

    def prune_heads(self, heads: Mapping[int, Iterable[int]]) -> None:
        """Remove attention heads for good, as masking them would; the configuration remembers them.

        Args:
            heads: block number -> original numbers of the heads to remove.
        """
        self._prune(heads)
        pruned = self.config.pruned_heads
        self.config.pruned_heads = pruned | {
            int(block): sorted({*pruned.get(block, ()), *gone}) for block, gone in heads.items()
        }

    def _prune(self, heads: Mapping[int, Iterable[int]]) -> None:
        blocks = [block for stack in self._stacks() for block in stack]
        for number, gone in heads.items():
            if not 0 <= int(number) < len(blocks):
                raise UserError(f"pruned_heads names block {number}; there are {len(blocks)}")
            blocks[int(number)].attention.prune(gone)  # type: ignore[union-attr, operator]

    def _stacks(self) -> list[Transformer]:
        return [module for module in self.modules() if isinstance(module, Transformer)]

    def set_attn_implementation(self, implementation: str) -> None:
        """Switch every attention to ``eager``, ``sdpa``, ``flash`` or ``flex``."""
        config = self.config.replace(attn_implementation=implementation)
        for module in self.modules():
            if isinstance(module, PreTrainedModel):
                module.config = config
            if isinstance(module, Attention):
                module.implementation = implementation

    # ---- token embeddings

    def get_input_embeddings(self) -> nn.Module:
        """The word table, or what else reads raw input."""
        base = self.base_model
        return base.get_submodule("frontend") if base is self else base.get_input_embeddings()

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        """Replace the word table."""
        if self.base_model is self:
            raise UserError(f"{type(self).__name__} has no word table")
        self.base_model.set_input_embeddings(table)

    def get_output_embeddings(self) -> nn.Linear | None:
        """The map to the vocabulary, where there is one."""
        return None

    def set_output_embeddings(self, decoder: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        raise UserError(f"{type(self).__name__} has no map to a vocabulary")

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Embedding:
        """Grow or shrink the vocabulary at its end; new rows are initialised as a new model's.

        Args:
            new_num_tokens: size of the vocabulary; None keeps it.
            pad_to_multiple_of: round the size up to a multiple of this.

        Returns:
            The word table.
        """
        old, decoder = self.get_input_embeddings(), self.get_output_embeddings()
        if not isinstance(old, nn.Embedding):
            raise UserError(f"{type(self).__name__} has no word table to resize")
        size = new_num_tokens or old.num_embeddings
        size += -size % (pad_to_multiple_of or 1)
        self.config.replace(vocab_size=size)  # refuses a vocabulary without its special tokens
        table = nn.Embedding(size, old.embedding_dim, old.padding_idx).to(old.weight)
        self.init_module(table)
        _copy_rows(old.weight, table.weight)
        self.set_input_embeddings(table)
        if decoder is not None:
            wider = nn.Linear(decoder.in_features, size).to(decoder.weight)
            self.init_module(wider)
            _copy_rows(decoder.weight, wider.weight)
            _copy_rows(decoder.bias, wider.bias)
            self.set_output_embeddings(wider)
        self.config.vocab_size = size
        self.tie_weights()
        return table

    # ---- loading

    @classmethod
    def from_config(cls, config: PretrainedConfig, *, dtype: torch.dtype | None = None) -> Self:
        """A newly initialised model."""
        model = cls(config)
        return model if dtype is None else model.to(dtype)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        config: PretrainedConfig | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Any:
        """Load a published checkpoint from a folder or the hub.

        Args:
            source: folder with ``config.json`` and weights, or a hub id.
            config: use this configuration instead of the stored one.
            dtype: type of the weights; None or ``"auto"`` keeps the stored one.
            torch_dtype: older name of `dtype`.
            ignore_mismatched_sizes: initialise tensors of another shape anew instead of refusing.
            output_loading_info: also return the `LoadReport`.
            options: configuration fields to override (``num_labels=3``, ``attn_implementation="eager"``,
                ``compat="transformers"``), and where to look: ``revision``, ``cache_dir``, ``token``,
                ``local_files_only``, ``subfolder``.

        Returns:
            The model in eval mode; with `output_loading_info` the pair (model, `LoadReport`).

        Raises:
            UserError: the file is missing, cut short, of another model, or of other shapes.
        """
        from data2vec.hub import HUB_ARGUMENTS, resolve

        hub = {key: options.pop(key) for key in list(options) if key in HUB_ARGUMENTS}
        if config is None:
            config = cls.config_class.from_pretrained(source, **hub, **options)
        elif options:
            config = config.replace(**options)
        folder = resolve(source, WEIGHT_PATTERNS, **hub)
        with torch.device("meta"):
            model = cls(config)
        report = model._materialize(
            read_weights(folder), _as_dtype(dtype or torch_dtype), ignore_mismatched_sizes, str(source)
        )
        model.eval()
        return (model, report) if output_loading_info else model

    def _materialize(
        self, stored: Mapping[str, Tensor], dtype: torch.dtype | None, ignore_mismatched: bool, source: str
    ) -> LoadReport:
        """Give every parameter and buffer (on the meta device) its stored tensor, or a new one."""
        weights = self._match(stored)
        self.adopt(weights)
        fresh_dtype = dtype or next((t.dtype for t in weights.values() if t.is_floating_point()), None)
        report = LoadReport()
        wanted = self.state_dict(keep_vars=True)
        tied = set(self.tied) if self.config.tie_word_embeddings else set()
        fresh: list[str] = []
        for name, target in wanted.items():
            tensor = weights.pop(name, None)
            if tensor is not None and tensor.shape != target.shape:
                report.mismatched.append((self.names.published(name), tuple(tensor.shape), tuple(target.shape)))
                tensor = None
            elif tensor is None and name not in tied:
                report.missing.append(self.names.published(name))
            if tensor is None:
                kind = fresh_dtype if target.is_floating_point() else None
                tensor = torch.empty_like(target, device="cpu", dtype=kind)
                fresh.append(name)
            elif dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(dtype)
            self._assign(name, tensor)
        report.unexpected = sorted(weights)
        if report.mismatched and not ignore_mismatched:
            name, found, expected = report.mismatched[0]
            raise UserError(
                f"{source}: {name} has shape {found}, this configuration needs {expected}; pass "
                f"ignore_mismatched_sizes=True to initialise such tensors anew ({len(report.mismatched)} in all)"
            )
        self._init_fresh(fresh)
        self.tie_weights()
        _tell(type(self).__name__, source, report)
        return report

    def adopt(self, stored: Collection[str]) -> None:
        """Learn from a checkpoint's tensor names (ours) what its configuration does not say. Nothing, for most."""

    def _match(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stored tensors under our names, with the base prefix added or taken off as this class needs it."""
        prefix = self.names.prefix + "."
        weights = {name: tensor for key, tensor in stored.items() if (name := self.names.ours(key)) is not None}
        is_head = isinstance(getattr(self, self.names.prefix, None), PreTrainedModel)
        stored_head = any(name.startswith(prefix) for name in weights)
        if is_head and not stored_head:
            return {prefix + name: tensor for name, tensor in weights.items()}
        if not is_head and stored_head:
            return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        return weights

    def _assign(self, name: str, tensor: Tensor) -> None:
        owner, _, leaf = name.rpartition(".")
        module = self.get_submodule(owner)
        if leaf in module._parameters:
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
        else:
            module._buffers[leaf] = tensor

    def _init_fresh(self, names: list[str]) -> None:
        """Initialise only `names`: a module that got some of its tensors from the file keeps those."""
        fresh = set(names)
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):  # not a set: seeds must repeat
            module = self.get_submodule(owner)
            dot = owner + "." if owner else ""
            kept = {leaf: t.clone() for leaf, t in _own(module).items() if dot + leaf not in fresh}
            self.init_module(module)
            with torch.no_grad():
                for leaf, tensor in kept.items():
                    _own(module)[leaf].copy_(tensor)

    # ---- saving

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        max_shard_size: int | str = "5GB",
        state_dict: Mapping[str, Tensor] | None = None,
        is_main_process: bool = True,
        safe_serialization: bool = True,
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` in the published layout.

        Args:
            folder: created when missing.
            max_shard_size: bytes, or ``"500MB"``; larger models are split, with an index.
            state_dict: save these tensors (our names) instead of the model's own.
            is_main_process: False writes nothing, for the other processes of a distributed run.
            safe_serialization: only True: pickled weights are read, never written.
        """
        if not safe_serialization:
            raise UserError("safe_serialization=False would write a pickle: model.safetensors is all that is written")
        if not is_main_process:
            return
        folder = Path(folder)
        if folder.is_file():
            raise UserError(f"{folder} is a file; save_pretrained needs a folder")
        folder.mkdir(parents=True, exist_ok=True)
        weights = dict(state_dict if state_dict is not None else self.state_dict())
        if self.config.tie_word_embeddings:
            weights = {name: tensor for name, tensor in weights.items() if name not in self.tied}
        self.config.architectures = [type(self).__name__]
        self.config.dtype = str(self.dtype).removeprefix("torch.")
        self.config.save_pretrained(folder)
        published = {self.names.published(name): tensor for name, tensor in _unshared(weights).items()}
        write_weights(folder, published, _as_bytes(max_shard_size))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload model",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "5GB",
    ) -> str:
        """Save to a repository of the hub, created when missing.

        Args:
            repo_id: ``"owner/name"``, or ``"name"`` for one's own.
            commit_message: of the commit.
            private: visibility of a new repository; None = the owner's default.
            token: access token; None or True takes the stored one.
            revision: branch to commit to.
            create_pr: open a pull request instead.
            max_shard_size: see `save_pretrained`.

        Returns:
            Address of the commit.
        """
        from huggingface_hub import HfApi

        hub = HfApi(token=token)
        repository = hub.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            commit = hub.upload_folder(
                repo_id=repository.repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
        return str(commit.commit_url)


@torch.no_grad()
def _copy_rows(old: Tensor, new: Tensor) -> None:
    rows = min(len(old), len(new))
    new[:rows] = old[:rows]


def _own(module: nn.Module) -> dict[str, Tensor]:
    tensors = {**module._parameters, **module._buffers}
    return {leaf: tensor for leaf, tensor in tensors.items() if tensor is not None}


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One memory a name, as the file format wants."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        own[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return own


def _as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or dtype == "auto" or isinstance(dtype, torch.dtype):
        return dtype if isinstance(dtype, torch.dtype) else None
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise UserError(f"dtype {dtype!r} is unknown; use float32, bfloat16, float16 or auto")
    return found


def _as_bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    for suffix, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size.upper().endswith(suffix):
            return int(float(size[: -len(suffix)]) * factor)
    raise UserError(f"max_shard_size {size!r} is not understood; write for example '500MB'")


def _tell(model: str, source: str, report: LoadReport) -> None:
    """One warning for what did not come from the file; a head that a base checkpoint cannot hold is the usual case."""
    if report.missing or report.mismatched:
        names = report.missing + [name for name, _, _ in report.mismatched]
        logger.warning("%s from %s: newly initialised (train before use): %s", model, source, ", ".join(names))
    if report.unexpected:
        logger.info("%s from %s: not used: %s", model, source, ", ".join(report.unexpected))


__all__ = ["LoadReport", "PreTrainedModel"]
