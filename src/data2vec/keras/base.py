"""What the TF classes share: calling, training, loading, saving."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from data2vec.errors import UserError
from data2vec.hub import HUB_ARGUMENTS
from data2vec.keras import export, weights
from data2vec.keras.backend import keras, tf
from data2vec.keras.checks import InputError
from data2vec.keras.outputs import TFModelOutput
from data2vec.models.names import VISION, NameTable
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.weights import write_weights

logger = logging.getLogger("data2vec")
ops = keras.ops


class TFData2VecVisionPreTrainedModel(keras.Model):
    """Base of the TF classes: a Keras model that reads and writes the same files as the PyTorch classes.

    Attributes:
        names: tensor names on disk.
        own_options: what `from_pretrained` hands to the constructor.
        config: the configuration.
    """

    names: ClassVar[NameTable] = VISION
    config_class: ClassVar[type[Data2VecVisionConfig]] = Data2VecVisionConfig
    base_model_prefix: ClassVar[str] = VISION.prefix
    main_input_name: ClassVar[str] = "pixel_values"
    own_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Data2VecVisionConfig, name: str | None = None) -> None:
        super().__init__(name=name)
        if not isinstance(config, Data2VecVisionConfig):
            raise UserError(f"{type(self).__name__} needs a Data2VecVisionConfig, not a {type(config).__name__}")
        config.require(not config.pruned_heads, "pruned_heads: the TF classes have no pruned heads; pass a head_mask")
        self.config: Data2VecVisionConfig = config

    # ---- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model, see `call` for the arguments.

        Inputs may come as ``model(x)``, ``model([x, ...])``, ``model({"pixel_values": x, ...})`` (a processor's output)
        or by keyword.

        Returns:
            `TFModelOutput`, or a tuple with ``return_dict=False``.
        """
        given = self._bind(args, kwargs)
        outputs = super().__call__(given.pop(self.main_input_name), **given)
        symbolic = any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(outputs))
        return TFModelOutput(outputs) if isinstance(outputs, dict) and not symbolic else outputs

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by name, those that are None left out."""
        names = [name for name in inspect.signature(type(self).call).parameters if name != "self"]
        given: dict[str, Any] = {}
        if args and isinstance(args[0], Mapping):
            given.update(args[0])
            args = (None, *args[1:])
        elif args and isinstance(args[0], (list, tuple)):
            args = (*args[0], *args[1:])
        if len(args) > len(names):
            raise InputError(f"{type(self).__name__} takes {len(names)} inputs ({', '.join(names)}), not {len(args)}")
        positional = {name: value for name, value in zip(names, args, strict=False) if value is not None}
        for more in (positional, kwargs):
            twice = sorted(set(more) & set(given))
            if twice:
                raise InputError(f"{type(self).__name__} got {twice[0]} twice")
            given.update(more)
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise InputError(f"{type(self).__name__} knows no input {unknown[0]!r}; it takes {', '.join(names)}")
        if given.get(self.main_input_name) is None:
            raise InputError(f"{type(self).__name__} needs {self.main_input_name}")
        if isinstance(given[self.main_input_name], (list, tuple)):  # a list of images
            given[self.main_input_name] = ops.stack(given[self.main_input_name])
        return {name: value for name, value in given.items() if value is not None}

    def finish(self, outputs: dict[str, Any], return_dict: bool | None) -> Any:
        """The outputs, or a tuple of them."""
        use_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs if use_dict else tuple(outputs.values())

    # ---- training: the model's own loss when the labels are an input, or when none was compiled

    def train_step(self, data: Any) -> Any:
        """As Keras; labels go into the model where `compile` got no loss."""
        return super().train_step(self._with_labels(data))

    def test_step(self, data: Any) -> Any:
        """As Keras; labels go into the model where `compile` got no loss."""
        return super().test_step(self._with_labels(data))

    def _with_labels(self, data: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None or self.loss is not None:
            return data
        inputs = dict(x) if isinstance(x, Mapping) else {self.main_input_name: x}
        return {**inputs, "labels": y}, None, sample_weight

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The compiled loss of the logits, or, without targets, the mean of the model's own loss."""
        if y is not None:
            return super().compute_loss(x, y, _predicted(y, y_pred), sample_weight, training)
        if y_pred.get("loss") is None:
            raise InputError("training needs labels: in the inputs, {'pixel_values': x, 'labels': y}, or as targets")
        if sample_weight is not None:
            raise InputError("weights of samples or classes need a loss in compile(); the model's own loss has none")
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # whose gradients are summed
        return (ops.mean(y_pred["loss"]) + sum(self.losses)) / replicas

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The compiled metrics of the logits; labels among the inputs are their targets."""
        if y is None and isinstance(x, Mapping):
            y = x.get("labels")
        return super().compute_metrics(x, y, _predicted(y, y_pred), sample_weight)

    # ---- files

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        config: Data2VecVisionConfig | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        from_pt: bool | None = None,
        **options: Any,
    ) -> Any:
        """Load a published checkpoint, whether PyTorch or TensorFlow wrote it.

        Args:
            source: folder with ``config.json`` and weights, or a hub id. Weights: ``model.safetensors`` (also in
                shards, also with TensorFlow's names), ``pytorch_model.bin``, ``tf_model.h5``.
            config: use this configuration instead of the stored one.
            ignore_mismatched_sizes: initialise tensors of another shape anew instead of refusing.
            output_loading_info: also return the `LoadReport`.
            from_pt: not needed, the layout is recognised; accepted because the documentation has it.
            options: configuration fields to override (``num_labels=3``, ``compat="transformers"``), and where to look:
                ``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``force_download``, ``subfolder``. For
                `TFData2VecVisionModel` also ``add_pooling_layer``.

        Returns:
            The model; with `output_loading_info` the pair (model, `LoadReport`).

        Raises:
            UserError: the file is missing, cut short, of another model, or does not fit the configuration.
        """
        hub, own = (
            {key: options.pop(key) for key in keys if key in options} for keys in (HUB_ARGUMENTS, cls.own_options)
        )
        if {"dtype", "torch_dtype"} & set(options):
            raise UserError(
                "dtype: the TF classes keep float32 weights; to compute in less, call "
                "keras.config.set_dtype_policy('mixed_bfloat16') first"
            )
        if config is None:
            config = cls.config_class.from_pretrained(source, **hub, **options)
        elif options:
            config = config.replace(**options)
        stored = weights.find_weights(source, **hub)
        cls.adopt(config, [name for key in stored if (name := cls.names.ours(key)) is not None])
        model = cls(config, **own)
        report = weights.load(model, stored, str(source), ignore_mismatched_sizes=ignore_mismatched_sizes)
        if fresh := report.missing + [name for name, _, _ in report.mismatched]:
            logger.warning("%s from %s: newly initialised (train before use): %s", cls.__name__, source, fresh)
        if report.unexpected:
            logger.info("%s from %s: not used: %s", cls.__name__, source, ", ".join(report.unexpected))
        return (model, report) if output_loading_info else model

    @classmethod
    def adopt(cls, config: Data2VecVisionConfig, stored: Collection[str]) -> None:
        """Set in `config` what only the checkpoint's tensors (our names) tell. A head overrides."""

    def save_pretrained(
        self, folder: str | Path, *, saved_model: bool = False, max_shard_size: int = 5 * 10**9
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``, the same files as the PyTorch class of this name.

        Args:
            folder: created when missing.
            saved_model: also export a SavedModel to ``saved_model/1`` in it.
            max_shard_size: bytes; larger models are split, with an index.
        """
        folder = Path(folder)
        if folder.is_file():
            raise UserError(f"{folder} is a file; save_pretrained needs a folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self).__name__.removeprefix("TF")]
        self.config.dtype = "float32"
        self.config.save_pretrained(folder)
        write_weights(folder, weights.save(self), max_shard_size)
        if saved_model:
            self.export(folder / "saved_model" / "1")

    def export(
        self,
        filepath: str | Path,
        format: str = "tf_saved_model",
        *,
        image_size: tuple[int, int] | None = None,
        int8: bool = False,
    ) -> Path:
        """Write the model for use without this library.

        Args:
            filepath: a folder for ``tf_saved_model``, a file for ``litert``.
            format: ``tf_saved_model`` (each weight stored once) or ``litert`` (built-in operators only).
            image_size: (height, width) of its input; the configuration's by default. The batch size stays free.
            int8: for ``litert``, store the weights as 8-bit integers (dynamic range).

        Returns:
            `filepath`.
        """
        if format == "tf_saved_model" and not int8:
            return export.saved_model(self, Path(filepath), image_size)
        if format == "litert":
            return export.litert(self, Path(filepath), image_size, int8=int8)
        raise UserError(f"export format {format!r} (int8={int8}) is unknown; use tf_saved_model, or litert with int8")

    # ---- Keras' own files (.keras)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {"config": self.config.to_dict(), "name": self.name}

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> Self:
        """A newly initialised model, from a `Data2VecVisionConfig` or from what `get_config` returned."""
        if isinstance(config, Data2VecVisionConfig):
            return cls(config)
        return cls(**{**config, "config": Data2VecVisionConfig.from_dict(config["config"])})


def _predicted(y: Any, y_pred: Any) -> Any:
    """The predictions that `y` is the target of: those of its names, or the main ones."""
    if isinstance(y, Mapping):
        missing = [name for name in y if name not in y_pred]
        if missing:
            raise InputError(f"targets name {missing[0]!r}; the model returns {', '.join(y_pred)}")
        return {name: y_pred[name] for name in y}
    return y_pred["logits"] if "logits" in y_pred else y_pred["last_hidden_state"]
