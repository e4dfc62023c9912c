"""Who may import whom (the table of ARCHITECTURE.md), read off the source with `ast`."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
FILES = sorted((SRC / "data2vec").rglob("*.py"))

ANYONE = ["errors"]
CONFIGS = ["configuration", "*.config", "*.config.*"]
TENSOR_PLUMBING = ["configuration", "outputs", "modeling", "weights", "hub", "models", "nn"]
PREDICTION = [*TENSOR_PLUMBING, "processing", "decoding", "data", "auto", "pipelines"]

# room -> what it may import beside itself and `errors`: a room, a module, or a pattern
ALLOWED = {
    "__main__": ["cli"],
    "errors": [],
    "configuration": ["hub"],  # from_pretrained, when called
    "outputs": [],
    "hub": ["configuration", "models.names"],
    "modeling": ["configuration", "hub", "outputs", "weights", "models.names", "nn"],
    "weights": [],
    "nn": [],
    "models": TENSOR_PLUMBING,
    "processing": ["configuration", "hub"],
    "objectives": TENSOR_PLUMBING,
    "data": ["configuration", "hub", "processing"],
    "training": [*TENSOR_PLUMBING, "processing", "objectives", "data", "evaluation", "tasks", "recipes"],
    "recipes": [*CONFIGS, "objectives.masking"],
    "decoding": PREDICTION,
    "evaluation": PREDICTION,
    "tasks": [*PREDICTION, "evaluation"],
    "conversion": PREDICTION,
    "export": PREDICTION,
    "serve": [*PREDICTION, "export"],
    "auto": PREDICTION,
    "pipelines": PREDICTION,
    "keras": ["configuration", "hub", "weights", "modeling.LoadReport", "models.names", "models.*.config.*"],
    "demo": [*PREDICTION, "objectives", "evaluation", "training", "recipes"],
    "cli": ["*"],
}
FOREIGN = {  # package -> the only room that may import it
    "transformers": None,
    "fairseq": None,
    "keras": "keras",
    "tensorflow": "keras",
    "torchvision": None,
    "torchaudio": None,
}


def module_name(file: Path) -> str:
    parts = file.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, *, everywhere: bool = True) -> Iterator[str]:
    """Full names that a file imports; with ``everywhere=False`` only those that run when it is imported."""
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                yield "."
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not everywhere:
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) if not everywhere:
                todo.extend(node.orelse)
                continue
        todo.extend(ast.iter_child_nodes(node))


def allows(pattern: str, target: str) -> bool:
    return target == pattern or target.startswith(f"{pattern}.") or fnmatch(target, pattern)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_rooms_import_only_what_the_architecture_allows(file: Path) -> None:
    room = module_name(file).removeprefix("data2vec").lstrip(".").split(".")[0]
    if not room:  # data2vec/__init__.py names everything, lazily
        return
    assert room in ALLOWED, f"a new room: give {room!r} a row here and in ARCHITECTURE.md"
    for name in imports(file):
        assert name != ".", f"{file}: imports are absolute"
        package, _, target = name.partition(".")
        if package == "data2vec":
            allowed = [room, *ANYONE, *ALLOWED[room]]
            public = "." not in target and target[:1].isupper()  # `from data2vec import Data2VecAudioModel`
            assert not public, f"{file} imports data2vec.{target} from the top: name its module"
            assert not target or target == "__version__" or any(allows(pattern, target) for pattern in allowed), (
                f"{module_name(file)} must not import data2vec.{target}"
            )
        elif package in FOREIGN:
            assert room == FOREIGN[package], f"{module_name(file)} must not import {package}"


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.stem in ("__init__", "config", "configuration")], ids=module_name
)
def test_configs_and_packages_name_no_torch(file: Path) -> None:
    assert not [name for name in imports(file, everywhere=False) if name.split(".")[0] == "torch"]


def test_the_rules_catch_a_breach(tmp_path: Path) -> None:
    file = tmp_path / "breach.py"
    file.write_text(
        "def f():\n    from data2vec.training import trainer\nif True:\n    import torch.nn\nfrom . import x\n"
    )
    assert set(imports(file)) == {"data2vec.training.trainer", "torch.nn", "."}
    assert set(imports(file, everywhere=False)) == {"torch.nn", "."}
    assert allows("models.*.config.*", "models.audio.config.Data2VecAudioConfig")
    assert allows("*.config.*", "models.audio.config.Data2VecAudioConfig")
    assert not allows("nn", "nnx.attention")
