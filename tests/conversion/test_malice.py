"""Files made to run code, to take memory or to crash: refused or read as inert data, and nothing else happens."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pickle  # noqa: TID251 - the attacks are checked against the real thing
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data2vec.conversion
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.loading import load_checkpoint
from data2vec.conversion.pickles import Record
from data2vec.conversion.tensor_files import read_source, write_safetensors
from data2vec.conversion.torch_files import read_torch_file
from data2vec.errors import UserError

TRACES: list[str] = []


class Trap:
    """Leaves a trace however it is built: what an attacker's third-party class would be."""

    def __new__(cls, *args: Any, **keywords: Any) -> Trap:
        TRACES.append("new")
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        TRACES.append("init")

    def __setstate__(self, state: Any) -> None:
        TRACES.append("setstate")

    def __reduce_ex__(self, protocol: Any) -> Any:
        TRACES.append("reduce")
        return (Trap, ())

    def append(self, item: Any) -> None:
        TRACES.append("append")

    def __setitem__(self, key: Any, value: Any) -> None:
        TRACES.append("setitem")


def trap(*args: Any) -> None:
    TRACES.append("call")


HERE = __name__.encode()


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def name(module: bytes, attribute: bytes) -> bytes:
    return b"c" + module + b"\n" + attribute + b"\n"


def stack_name(module: bytes, attribute: bytes) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def call_forms(module: bytes, attribute: bytes, argument: bytes) -> dict[str, bytes]:
    """One pickle for each opcode that makes something from a callable."""
    target = name(module, attribute)
    return {
        "REDUCE": target + argument + b"\x85R.",
        "STACK_GLOBAL": stack_name(module, attribute) + argument + b"\x85R.",
        "INST": b"(" + argument + b"i" + module + b"\n" + attribute + b"\n.",
        "OBJ": b"(" + target + argument + b"o.",
        "NEWOBJ": target + argument + b"\x85\x81.",
        "NEWOBJ_EX": target + argument + b"\x85}\x92.",
        "BUILD": target + b")\x81" + b"}" + text(b"x") + argument + b"sb.",
        "APPEND": target + b")\x81" + argument + b"a.",
        "SETITEM": target + b")\x81" + text(b"x") + argument + b"s.",
        "MEMO": target + b"q\x000h\x00" + argument + b"\x85R.",
        "DUP": target + b"2" + argument + b"\x85R.",
        "BUILD_STATE": target + b")\x81" + argument + b"b.",
    }


def files(payload: bytes) -> dict[str, bytes]:
    """The payload in both formats of torch."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x04" + payload)
        file.writestr("archive/version", b"3\n")
    legacy = io.BytesIO()
    torch.save({}, legacy, _use_new_zipfile_serialization=False)
    head = legacy.getvalue()
    assert head.count(b"}q\x00.") == 1
    return {"zip": buffer.getvalue(), "legacy": head.replace(b"}q\x00.", payload)}


REFUSED = {
    "os.system": (b"os", b"system"),
    "posix.system": (b"posix", b"system"),
    "nt.system": (b"nt", b"system"),
    "subprocess": (b"subprocess", b"Popen"),
    "eval": (b"builtins", b"eval"),
    "exec": (b"builtins", b"exec"),
    "py2 exec": (b"__builtin__", b"execfile"),
    "open": (b"builtins", b"open"),
    "getattr": (b"builtins", b"getattr"),
    "import": (b"builtins", b"__import__"),
    "partial": (b"functools", b"partial"),
    "dotted": (b"torch.serialization", b"os.system"),
    "runpy": (b"runpy", b"run_path"),
    "socket": (b"socket", b"create_connection"),
    "ctypes": (b"ctypes", b"CDLL"),
    "pickle": (b"pickle", b"loads"),
    "importlib": (b"importlib", b"import_module"),
    "shutil": (b"shutil", b"rmtree"),
    "code": (b"types", b"FunctionType"),
    "webbrowser": (b"webbrowser", b"open"),
}


@pytest.mark.parametrize("attack", REFUSED)
def test_names_that_run_code_are_refused(tmp_path: Path, attack: str) -> None:
    module, attribute = REFUSED[attack]
    path = tmp_path / "evil.pt"
    mark = tmp_path / "trace"
    argument = text(f"touch {mark}".encode())
    for payload in call_forms(module, attribute, argument).values():
        for body in files(payload).values():
            path.write_bytes(body)
            with pytest.raises(CheckpointError, match="refused"):
                read_torch_file(path)
    assert not mark.exists()


def test_the_attack_would_work_on_the_real_unpickler(tmp_path: Path) -> None:
    """Control: the same bytes run under `torch.load(weights_only=False)`, and leave no trace here."""
    mark = tmp_path / "trace"
    module, attribute = os.system.__module__.encode(), b"system"
    path = tmp_path / "evil.pt"
    path.write_bytes(files(call_forms(module, attribute, text(f"touch {mark}".encode()))["REDUCE"])["zip"])
    with pytest.raises(CheckpointError, match="could run code"):
        read_torch_file(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("form", call_forms(b"a", b"b", b"]"))
@pytest.mark.parametrize("target", [b"Trap", b"trap"])
def test_unknown_classes_are_never_touched(tmp_path: Path, form: str, target: bytes) -> None:
    """A class or function that is importable, of no standard module, is named in the report and never called."""
    payload = call_forms(HERE, target, text(b"x"))[form]
    TRACES.clear()
    with contextlib.suppress(Exception):  # some forms suit only a class, and fail after they left their trace
        pickle.loads(b"\x80\x04" + payload)
    control = list(TRACES)
    for body in files(payload).values():
        TRACES.clear()
        (tmp_path / "evil.pt").write_bytes(body)
        try:
            file = read_torch_file(tmp_path / "evil.pt")
            assert isinstance(file.content, Record)
            assert file.records == {f"{__name__}.{target.decode()}": 1}
        except CheckpointError:
            pass
        assert TRACES == []
    assert control or (target == b"trap" and form not in ("REDUCE", "STACK_GLOBAL", "INST", "OBJ", "MEMO", "DUP"))


def test_trap_control_covers_setstate() -> None:
    """The control above is real: the standard unpickler does call `__setstate__`."""
    TRACES.clear()
    pickle.loads(b"\x80\x04" + call_forms(HERE, b"Trap", b"}")["BUILD_STATE"])
    assert "setstate" in TRACES


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1) + b"."


def laughs(depth: int) -> bytes:
    """A list of a list of ... each twice in the next: 2**depth leaves in a few bytes."""
    return (
        b"]"
        + b"".join(b"q" + bytes([i]) + b"0]" + (b"h" + bytes([i])) + b"ah" + bytes([i]) + b"a" for i in range(depth))
        + b"."
    )


BOMBS: dict[str, bytes] = {
    "bytes of 1 TB": b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "text of 4 GB": b"X" + struct.pack("<I", 0xFFFFFFFE) + b"x.",
    "bytearray of 1 TB": b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytearray(10**12)": name(b"builtins", b"bytearray") + b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
    "bytes(10**12)": name(b"builtins", b"bytes") + b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
    "long of 2 GB": b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x.",
    "long of 4096 digits": b"L" + b"9" * 4096 + b"L\n.",
    "hash of shared tuples": b"}" + b")" + b"2\x86" * 60 + b"]s.",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_they_take_memory(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "bomb.pt"
    path.write_bytes(files(BOMBS[bomb])["zip"])
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(CheckpointError):
        read_torch_file(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert time.process_time() - start < 2


def test_endless_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data2vec.conversion.pickles.MAX_OPERATIONS", 100)
    path = tmp_path / "long.pt"
    path.write_bytes(files(b"N0" * 45 + b"N.")["zip"])
    assert read_torch_file(path).content is None
    path.write_bytes(files(b"N0" * 51 + b"N.")["zip"])
    with pytest.raises(CheckpointError, match="operations"):
        read_torch_file(path)


def test_huge_memo_index_takes_no_memory(tmp_path: Path) -> None:
    """The C unpickler sizes its memo by the largest index: 64 GB for this file."""
    path = tmp_path / "memo.pt"
    path.write_bytes(files(b"]r\xff\xff\xff\xff.")["zip"])
    tracemalloc.start()
    assert read_torch_file(path).content == []
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_deep_and_shared_containers_stay_cheap(tmp_path: Path) -> None:
    path = tmp_path / "deep.pt"
    path.write_bytes(files(nested(200_000))["zip"])
    assert isinstance(read_torch_file(path).content, list)
    path.write_bytes(files(laughs(100))["zip"])
    assert isinstance(read_torch_file(path).content, list)


def storage_pickle(
    count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], claim: int | None = None
) -> bytes:
    """A tensor with any numbers one likes over a storage of `count` float32."""

    def number(value: int) -> bytes:
        raw = value.to_bytes(16, "little", signed=True)
        return b"\x8a\x10" + raw

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    identity = b"(" + text(b"storage") + name(b"torch", b"FloatStorage") + text(b"0") + text(b"cpu")
    identity += number(count if claim is None else claim) + b"tQ"
    view = number(offset) + numbers(size) + numbers(stride)
    return name(b"torch._utils", b"_rebuild_tensor_v2") + b"(" + identity + view + b"\x89}tR."


def tensor_file(path: Path, payload: bytes, count: int) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x04" + payload)
        file.writestr("a/data/0", np.arange(count, dtype=np.float32).tobytes())


@pytest.mark.parametrize(
    ("offset", "size", "stride", "claim"),
    [
        (0, (5,), (1,), None),
        (1, (4,), (1,), None),
        (0, (2, 2), (3, 1), None),
        (0, (4,), (-1,), None),
        (-1, (4,), (1,), None),
        (0, (1 << 62, 4), (0, 1), None),
        (0, (1 << 40,), (0,), None),
        (0, (4,), (1,), 8),
        (0, (1 << 40,), (1,), 1 << 40),
        (0, (0, 1 << 80), (1, 1), None),
        (0, (2, 2), (1,), None),
        (0, (1,) * 17, (1,) * 17, None),
        (1 << 70, (1,), (1,), None),
        (0, (2,), (1 << 70,), None),
    ],
)
def test_impossible_tensors_are_refused(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...], claim: int | None
) -> None:
    tensor_file(tmp_path / "t.pt", storage_pickle(4, offset, size, stride, claim), 4)
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read_torch_file(tmp_path / "t.pt")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_possible_tensors_are_read(tmp_path: Path) -> None:
    tensor_file(tmp_path / "t.pt", storage_pickle(4, 1, (3,), (1,)), 4)
    assert read_torch_file(tmp_path / "t.pt").content.tolist() == [1, 2, 3]


def test_zip_directory_lies_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4)}, buffer)
    whole = bytearray(buffer.getvalue())
    end = whole.rfind(b"PK\x05\x06")
    central = whole.rfind(b"PK\x01\x02")
    lies: list[Callable[[bytearray], None]] = [
        lambda b: struct.pack_into("<H", b, end + 10, 0xFFFE),  # entries
        lambda b: struct.pack_into("<L", b, end + 12, 0xFFFFFFF0),  # size of the directory
        lambda b: struct.pack_into("<L", b, end + 16, 0xFFFFFFF0),  # its place
        lambda b: struct.pack_into("<LL", b, central + 20, 1 << 31, 1 << 31),  # size of an entry
        lambda b: struct.pack_into("<L", b, central + 42, 0xFFFFFFF0),  # its place
        lambda b: struct.pack_into("<H", b, central + 10, 8),  # compressed
        lambda b: struct.pack_into("<H", b, central + 8, 1),  # encrypted
    ]
    for lie in lies:
        body = bytearray(whole)
        lie(body)
        (tmp_path / "lie.pt").write_bytes(body)
        with pytest.raises(CheckpointError):
            read_torch_file(tmp_path / "lie.pt")


@pytest.mark.parametrize("claim", [2, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_safetensors_header_larger_than_the_file_is_refused(tmp_path: Path, claim: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", claim) + b"{")
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="header claims"):
        read_source(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# --- the fuzzer ---


def seeds(folder: Path) -> dict[str, bytes]:
    """Small files of each kind, with everything in them that checkpoints have."""
    value = {
        "model": {
            "w": torch.arange(6.0).reshape(2, 3),
            "h": torch.ones(2, dtype=torch.float16),
            "_ema": {"b": torch.zeros(3)},
        },
        "cfg": {"model": {"layers": 2, "spec": "[(32, 10, 5)]"}},
        "best": np.float64(1.5),
        "state": np.arange(3),
        "flags": [None, True, 2**40, (1, 2), {3}],
    }
    made = {}
    for legacy in (False, True):
        for protocol in (2, 4):
            buffer = io.BytesIO()
            torch.save(value, buffer, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
            made[f"{legacy}{protocol}.pt"] = buffer.getvalue()
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save(tiny_model(), buffer, _use_new_zipfile_serialization=not legacy)
        made[f"model{legacy}.pt"] = buffer.getvalue()
    write_safetensors(folder / "seed.safetensors", value["model"] | {"_ema": torch.zeros(3)}, {"format": "pt"})  # type: ignore[operator]
    made["seed.safetensors"] = (folder / "seed.safetensors").read_bytes()
    return made


def tiny_model() -> dict[str, Any]:
    """A whole fairseq text checkpoint of a few hundred bytes of weights."""
    width, stem = 4, "encoder.sentence_encoder."
    layer = {f"self_attn.{p}_proj": (width, width) for p in ("k", "v", "q", "out")}
    layer |= {"fc1": (8, width), "fc2": (width, 8), "self_attn_layer_norm": (width,), "final_layer_norm": (width,)}
    model: dict[str, Any] = {f"{stem}embed_tokens.weight": torch.ones(9, width), f"{stem}version": torch.ones(1)}
    model[f"{stem}embed_positions.weight"] = torch.ones(7, width)
    for name, shape in {"layernorm_embedding": (width,), **{f"layers.0.{n}": s for n, s in layer.items()}}.items():
        model |= {f"{stem}{name}.weight": torch.ones(shape), f"{stem}{name}.bias": torch.ones(shape[:1])}
    model["encoder._ema"] = {name.removeprefix(stem): tensor for name, tensor in model.items()}
    return {"model": model, "cfg": {"model": {"transformer": {"encoder": {"attention_heads": 2}}}}, "args": None}


def mutate(body: bytes, random: np.random.Generator) -> bytes:
    """One to four damages: bits, bytes, whole numbers, cuts, repeats, and pieces moved elsewhere."""
    data = bytearray(body)
    # Most bytes of a torch zip are padding and directory: half of the damage goes where the pickle lies.
    start, stop = 0, len(data)
    if random.random() < 0.5 and (found := data.find(b"\x80", 30)) >= 0:
        start, stop = found, min(found + 700, len(data))
    for _ in range(random.integers(1, 5)):
        if len(data) < 16:
            break
        place = int(random.integers(start, max(min(stop, len(data)), start + 1)))
        place = min(place, len(data) - 1)
        length = int(random.integers(1, 12))
        match random.integers(7):
            case 0:
                data[place] ^= 1 << int(random.integers(8))
            case 1:
                data[place : place + length] = random.bytes(length)
            case 2:
                data[place : place + 4] = struct.pack(
                    "<I", int(random.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data)]))
                )
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[max(0, place - length) : place]
            case 5:
                other = int(random.integers(len(data)))
                data[place:place] = data[other : other + length]
            case _:
                data = data[: max(place, 16)] if random.random() < 0.2 else data
                data[place % len(data)] = int(
                    random.choice(list(b"()]}.0123RcbsuaetoiQqhXr\x81\x85\x86\x87\x92\x93\x94\x95"))
                )
    return bytes(data)


def touch(value: Any, budget: list[int]) -> None:
    """Read every element of every tensor: a bad view would crash here."""
    budget[0] -= 1
    if budget[0] < 0:
        return
    if isinstance(value, torch.Tensor):
        value.to(torch.float64).sum().item()
    elif isinstance(value, dict):
        for item in value.values():
            touch(item, budget)
    elif isinstance(value, list | tuple):
        for item in value:
            touch(item, budget)


def fuzz(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Read `count` damaged files; return how many were refused and how many read."""
    random = np.random.default_rng(seed)
    originals = list(seeds(folder).items())
    (folder / "model.pt").write_bytes(dict(originals)["modelFalse.pt"])
    assert len(load_checkpoint(folder / "model.pt").tensors) > 20  # sound, before it is damaged
    refused = read = 0
    for number in range(count):
        kind, body = originals[number % len(originals)]
        path = folder / f"fuzz{Path(kind).suffix}"
        path.write_bytes(mutate(body, random))
        try:
            touch(read_source(path).content, [10_000])
            if kind.startswith("model"):
                touch(load_checkpoint(path).tensors, [10_000])
            read += 1
        except UserError:
            refused += 1
    return refused, read


def test_damaged_files_raise_our_error_or_load(tmp_path: Path) -> None:
    refused, read = fuzz(tmp_path, 2_000, seed=0)
    assert refused + read == 2_000
    assert refused > 400
    assert read > 100


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    refused, read = fuzz(tmp_path, 10_000, seed=1)
    assert refused + read == 10_000


def test_no_file_of_ours_can_unpickle() -> None:
    """Neither pickle nor torch.load appears in the room that reads foreign files."""
    room = Path(data2vec.conversion.__file__).parent
    for file in room.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"} & set(names), file
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("torch.load", "eval", "exec", "__import__", "np.load", "numpy.load"), (file, called)
