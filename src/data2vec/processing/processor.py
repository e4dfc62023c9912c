"""What every processor shares: the published JSON files, and the batch that a call returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from data2vec.errors import UserError
from data2vec.hub import resolve

if TYPE_CHECKING:
    import torch

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
COMPAT = "transformers"


class BatchFeature(dict[str, Any]):
    """What a processor returns: a dict whose items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name!r} in this batch: it has {', '.join(self) or 'nothing'}") from None

    def to(self, target: str | int | torch.device | torch.dtype) -> Self:
        """Move every tensor to a device, or cast the floating-point ones to a dtype; changes and returns this batch."""
        import torch

        for key, value in self.items():
            if isinstance(value, torch.Tensor) and (not isinstance(target, torch.dtype) or value.is_floating_point()):
                self[key] = value.to(target)
        return self


def is_tensor(value: object) -> bool:
    """Whether `value` is a torch tensor; does not import torch (who holds a tensor has)."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def collate(rows: Sequence[Any], return_tensors: str | None, field: str) -> Any:
    """Stack rows as asked: None leaves the list, ``"np"`` makes an array, ``"pt"`` a tensor on the rows' device.

    Raises:
        UserError: rows of different length as a tensor, or an unknown kind.
    """
    if return_tensors is None:
        return list(rows)
    if return_tensors not in ("pt", "np"):
        raise UserError(f"return_tensors={return_tensors!r}: choose 'pt', 'np' or None")
    shapes = {tuple(np.shape(row)) for row in rows}
    if return_tensors == "np":
        arrays = [row.detach().cpu().numpy() if is_tensor(row) else np.asarray(row) for row in rows]
        if len(shapes) < 2:
            return np.stack(arrays) if arrays else np.zeros((0,), np.int64)
        ragged = np.empty(len(arrays), dtype=object)  # as the published processors answer
        ragged[:] = arrays
        return ragged
    if len(shapes) > 1:
        raise UserError(
            f"{field}: rows of different shape {sorted(shapes)} make no tensor: pad (padding=True) or resize them"
        )
    import torch

    if any(is_tensor(row) for row in rows):
        return torch.stack([torch.as_tensor(row) for row in rows])
    array = np.asarray(rows)
    return torch.from_numpy(array if array.size else array.astype(np.int64))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object as the published files are laid out: sorted keys, two spaces, UTF-8."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def new_folder(path: str | Path) -> Path:
    """Make the folder that a processor is saved in."""
    folder = Path(path)
    if folder.is_file():
        raise UserError(f"{folder} is a file: give a folder to save in")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load_settings(path_or_id: str | Path, section: str, types: Sequence[str], **hub: Any) -> dict[str, Any]:
    """Settings of a feature extractor or an image processor.

    transformers 5 keeps those of a processor in ``processor_config.json`` under `section`; everything else is in
    ``preprocessor_config.json``.

    Args:
        path_or_id: folder or hub id.
        section: ``"feature_extractor"`` or ``"image_processor"``.
        types: class names that may stand in the file's ``..._type`` field.
        hub: see `data2vec.hub.resolve`.

    Raises:
        UserError: no such file, or the settings of another kind of processor.
    """
    folder = resolve(path_or_id, [PREPROCESSOR_FILE, PROCESSOR_FILE], **hub)
    path, settings = folder / PROCESSOR_FILE, None
    if path.is_file():
        settings = read_json(path).get(section)
    if settings is None:
        path = folder / PREPROCESSOR_FILE
        if not path.is_file():
            raise UserError(f"{folder / PROCESSOR_FILE}: no {section!r} in it, and no {PREPROCESSOR_FILE} beside it")
        settings = read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path}: {section} must be an object, found {type(settings).__name__}")
    for field in ("feature_extractor_type", "image_processor_type"):
        if field in settings and settings[field] not in types:
            raise UserError(f"{path}: {field} is {settings[field]!r}, this reads {' or '.join(types[:1])} only")
    return settings


def check_compat(compat: str | None) -> str | None:
    """The option of every processor: None, or ``"transformers"`` for that library's results, defects included."""
    if compat not in (None, COMPAT):
        raise UserError(f"compat={compat!r}: choose {COMPAT!r} or None")
    return compat
