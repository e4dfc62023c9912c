"""A pickle machine that cannot run anything.

A pickle is a program: it may name any function of any installed module and ask for a call. This machine follows the
program on its own stack and knows no call at all. The few constructors a checkpoint needs (tensors, plain containers,
numpy numbers) are functions of ours, found by name in a table; every other class or function becomes an inert `Record`,
which remembers what the file asked for. Names that no checkpoint has a reason to ask for (`os.system`, `builtins.eval`,
anything of the standard library but a short list) are refused: a file that wants them is malicious or damaged.

Opcodes are parsed by `pickletools.genops` of the standard library, which only reads.
"""

from __future__ import annotations

import pickletools
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from data2vec.conversion.errors import CheckpointError

MAX_BYTES = 64 << 20  # published files: below 1 MB
MAX_OPERATIONS = 4_000_000
_MAX_LINE = 1 << 16
_MAX_INTEGER_BITS = 4096

_STANDARD = sys.stdlib_module_names | {"__builtin__", "__builtins__", "copy_reg", "commands", "exceptions"}
# What published files take from the standard library: plain values, never a function with effects.
_HARMLESS = {
    "argparse": {"Namespace"},
    "builtins": {"set", "frozenset", "complex", "bytearray", "bytes", "list", "dict", "tuple", "int", "float", "str",
                 "bool", "object", "type", "slice", "range", "Ellipsis"},
    "collections": {"OrderedDict", "defaultdict", "Counter", "deque"},
    "copyreg": {"_reconstructor"},
    "_operator": {"getitem"},  # how typing.Optional[int] is pickled
    "operator": {"getitem"},
    "_codecs": {"encode"},
    "datetime": {"datetime", "date", "time", "timedelta"},
    "decimal": {"Decimal"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "typing": {"Any", "Optional", "Union", "List", "Dict", "Tuple", "Set", "Type"},
    "types": {"SimpleNamespace"},
    "uuid": {"UUID"},
}  # fmt: skip
_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A class or function that the file named; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """What the file wanted to build from a class we do not build: kept as data.

    Attributes:
        symbol: the class or function it named.
        args: what it would have been called with.
        state: what `__setstate__` would have got.
        items: appended to it as to a list.
        entries: set in it as in a dict.
    """

    symbol: Symbol
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    def __repr__(self) -> str:  # short on purpose: contents may be cyclic or shared a million times
        return f"<record of {self.symbol}>"


class Stream(Protocol):
    """What `pickletools.genops` reads from."""

    def read(self, size: int) -> bytes: ...  # noqa: D102
    def readline(self) -> bytes: ...  # noqa: D102
    def tell(self) -> int: ...  # noqa: D102


class Window:
    """A range of a buffer as a file whose reads never take more memory than the range holds."""

    def __init__(self, data: Any, start: int = 0, size: int | None = None) -> None:
        self._data = data
        self._position = start
        self._end = min(len(data) if size is None else start + size, len(data), start + MAX_BYTES)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        chunk = bytes(self._data[self._position : min(self._position + max(size, 0), self._end)])
        self._position += len(chunk)
        return chunk

    def readline(self) -> bytes:
        """Up to and with the next newline."""
        start = self._position
        head = bytes(self._data[start : min(start + _MAX_LINE, self._end)])
        return self.read(head.find(b"\n") + 1 or len(head))

    def tell(self) -> int:
        """Position in the whole buffer."""
        return self._position


Builder = Callable[..., Any]


class Machine:
    """Follows one pickle.

    Args:
        builders: full name -> our function that builds the value from the arguments in the file.
        persistent: what a persistent id (a tensor's storage) stands for.
    """

    def __init__(self, builders: Mapping[str, Builder], persistent: Callable[[Any], Any]) -> None:
        self._builders = builders
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.records: Counter[str] = Counter()

    def run(self, stream: Stream) -> Any:
        """Return the value of the pickle.

        Raises:
            CheckpointError: damaged, or asking for something refused.
        """
        try:
            for number, (opcode, arg, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
                if number > MAX_OPERATIONS:
                    raise CheckpointError(f"the pickle has over {MAX_OPERATIONS} operations: no checkpoint needs them")
                self._step(opcode.name, arg)
            return self._stack.pop()
        except CheckpointError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, Warning) as error:
            cause = f"{type(error).__name__}: {error}"[:300]
            raise CheckpointError(f"damaged pickle near byte {stream.tell()} ({cause})") from error

    def _step(self, name: str, arg: Any) -> None:
        if name in _LITERALS:
            if isinstance(arg, int) and arg.bit_length() > _MAX_INTEGER_BITS:
                raise CheckpointError(f"the pickle holds an integer of {arg.bit_length()} bits")
            self._stack.append(arg)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._stack.append(self._memo[arg])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[arg] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name == "MARK":
            self._marks.append(self._stack)
            self._stack = []
        elif name not in ("PROTO", "FRAME", "STOP"):
            method = _METHODS.get(name)
            if method is None:
                raise CheckpointError(f"the pickle uses {name}, which no checkpoint does: refused")
            method(self, arg)

    # --- stack ---

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _drop_mark(self, _: Any) -> None:
        self._pop_mark()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _tuple(self, _: Any) -> None:
        items = tuple(self._pop_mark())
        self._stack.append(items)

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("stack underflow")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    # --- containers ---

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Record):
            target.items.extend(items)
        elif isinstance(target, set):
            target.update(map(cheap_key, items))
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise TypeError(f"cannot append to {type(target).__name__}")

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        entries = target.entries if isinstance(target, Record) else target
        if not isinstance(entries, dict) or len(items) % 2:
            raise TypeError(f"cannot set items of {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            entries[cheap_key(key)] = value

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _set_item(self, _: Any) -> None:
        self._tuple_of(2)
        self._set(list(self._stack.pop()))

    def _list(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set(items)

    def _frozenset(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(map(cheap_key, items)))

    # --- classes: named, recorded, never called ---

    def _global(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        self._stack.append(_symbol(module, name))

    def _stack_global(self, _: Any) -> None:
        self._tuple_of(2)
        module, name = self._stack.pop()
        self._stack.append(_symbol(module, name))

    def _make(self, target: Any, args: Any) -> None:
        if isinstance(target, Record):  # calling what would have been a result: only a record of a record
            target = target.symbol
        if not isinstance(target, Symbol) or not isinstance(args, tuple):
            raise TypeError(f"cannot call {type(target).__name__}")
        builder = self._builders.get(str(target))
        if builder is not None:
            self._stack.append(builder(*args))
        else:
            self.records[str(target)] += 1
            self._stack.append(Record(target, args))

    def _reduce(self, _: Any) -> None:
        self._tuple_of(2)
        self._make(*self._stack.pop())

    def _new_with_keywords(self, _: Any) -> None:
        self._tuple_of(3)
        target, args, keywords = self._stack.pop()
        self._make(target, args if not keywords else (*args, keywords))

    def _object(self, _: Any) -> None:
        target, *args = self._pop_mark()
        self._make(target, tuple(args))

    def _instance(self, arg: str) -> None:
        args = tuple(self._pop_mark())
        self._global(arg)
        self._make(self._stack.pop(), args)

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif hasattr(target, "restore"):  # a half-built value of ours, see numpy_values
            target.restore(state)
        elif not isinstance(target, dict):  # a state dict carries `_metadata`: no part of the weights
            raise TypeError(f"cannot set the state of {type(target).__name__}")

    def _persistent_id(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))


def _symbol(module: Any, name: Any) -> Symbol:
    """Name a class, or refuse to."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError("a class is named by something that is no string")
    module = _PYTHON2.get(module, module)
    parts = [*module.split("."), *name.split(".")]
    if module in _HARMLESS and name in _HARMLESS[module]:
        return Symbol(module, name)
    # A dotted name walks attributes: `torch.serialization` + `os.system` would reach os.
    if parts[0] in _STANDARD or any(part in _STANDARD for part in name.split(".")[:-1]):
        raise CheckpointError(
            f"the file asks for {'.'.join(parts)[:200]!r}, which no checkpoint needs and which could run code: "
            "refused. Nothing of it was run"
        )
    return Symbol(module, name)


def cheap_key(key: Any) -> Any:
    """A dict key whose hash is cheap: nested shared tuples would take forever."""
    if isinstance(key, tuple):
        if len(key) > 64 or any(isinstance(k, tuple | frozenset) for k in key):
            raise TypeError("a dict key is a nested tuple")
    elif isinstance(key, frozenset):
        raise TypeError("a dict key is a set")
    return key


_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_METHODS: dict[str, Callable[[Machine, Any], None]] = {
    "POP": Machine._pop,
    "POP_MARK": Machine._drop_mark,
    "DUP": Machine._dup,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "LIST": Machine._list,
    "DICT": Machine._dict,
    "FROZENSET": Machine._frozenset,
    "APPEND": Machine._append,
    "APPENDS": lambda machine, _: machine._extend(machine._pop_mark()),
    "ADDITEMS": lambda machine, _: machine._extend(machine._pop_mark()),
    "SETITEM": Machine._set_item,
    "SETITEMS": lambda machine, _: machine._set(machine._pop_mark()),
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,  # cls.__new__(cls, *args): the same two operands
    "NEWOBJ_EX": Machine._new_with_keywords,
    "OBJ": Machine._object,
    "INST": Machine._instance,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent_id,
}
