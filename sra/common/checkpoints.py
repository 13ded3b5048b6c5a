"""Look into files of weights without loading them: formats, names and shapes, the classes of a pickle. Torch-free."""

from __future__ import annotations

import io
import json
import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sra.common.archives import open_archive, open_member
from sra.common.errors import DataError

SAFETENSORS = ".safetensors"
HEADER_BYTES = 8
"""Of safetensors: the length of the JSON header."""
MAX_HEADER_BYTES, MAX_PICKLE_BYTES = 100_000_000, 1 << 28
CHUNK_BYTES = 1 << 24
ZIP_START = b"PK\3\4"
LEGACY_PICKLES = 4
"""Before the tensors of a file that torch wrote until 1.5: magic number, version, machine, object."""
KNOWN_CLASSES = ("collections.OrderedDict", "collections.Counter", "_codecs.encode", "argparse.Namespace")
"""What `torch.load(weights_only=True)` makes besides torch's own and builtins, and what published files pickle."""
KNOWN_BUILTINS = ("set", "bytearray", "complex")


@dataclass(frozen=True)
class Header:
    """A tensor of a file."""

    shape: tuple[int, ...] | None
    """None: not known before it is loaded."""
    member: str | None = None
    """Of torch's zip, with the values, below the folder `data`; tensors can share one."""


def read_headers(path: Path) -> Any:
    """What a file of weights holds, with a `Header` for each tensor; no class of it is imported, no code of it run.

    Raises:
        DataError: a file that can hold no weights, or that holds objects which only unsafe unpickling makes: what was
            found instead; of a pickle, the first class.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a checkpoint, got {'a folder' if path.is_dir() else 'no file'}")
    return _safetensors(path) if path.suffix == SAFETENSORS else _pickled(path)


def check_content(path: Path, headers: Iterable[Header]) -> None:
    """Read tensors of a file that torch wrote as a zip, and compare them with their checksums; torch itself does not.

    Raises:
        DataError: the values have changed since they were written.
    """
    members = {f"data/{header.member}" for header in headers}
    with path.open("rb") as handle:
        if handle.read(len(ZIP_START)) != ZIP_START:
            return
    with open_archive(path) as archive:
        for info in archive.infolist():
            # torch can be told to write no checksums.
            if info.CRC and info.filename.partition("/")[2] in members:
                with archive.open(info) as member:
                    while member.read(CHUNK_BYTES):
                        pass


def _safetensors(path: Path) -> dict[str, Header]:
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(HEADER_BYTES), "little")
        header = handle.read(length) if 0 < length <= MAX_HEADER_BYTES else b""
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for entry in tensors.values()]
        whole = HEADER_BYTES + length + max(ends, default=0) == path.stat().st_size
        headers = {name: Header(tuple(entry["shape"])) for name, entry in tensors.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: expected a safetensors file, got another format") from error
    if not whole:
        raise DataError(f"{path}: expected a whole safetensors file, got one of another size than its header says")
    return headers


def _is_known(name: str) -> bool:
    module, _, rest = name.partition(".")
    builtin = module in ("builtins", "__builtin__") and rest in KNOWN_BUILTINS
    return module == "torch" or builtin or name in KNOWN_CLASSES


def _pickled(path: Path) -> Any:
    with path.open("rb") as handle:
        if handle.read(len(ZIP_START)) != ZIP_START:
            handle.seek(0)
            stream, count = io.BytesIO(handle.read(MAX_PICKLE_BYTES)), LEGACY_PICKLES
        else:
            stream, count = io.BytesIO(_pickle_of(path)), 1
    try:
        return [_object(stream, path) for _ in range(count)][-1]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(f"{path}: expected weights, as torch.save writes them, got none") from error


def _pickle_of(path: Path) -> bytes:
    with open_archive(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise DataError(f"{path}: expected a state of named tensors, got a TorchScript program")
        name = next((name for name in names if name.split("/")[1:] == ["data.pkl"]), None)
        if name is None:
            raise DataError(f"{path}: expected weights, as torch.save writes them, got another zip file")
        with open_member(archive, name, f"{path}: {name}") as member:
            return member.read(MAX_PICKLE_BYTES)


@dataclass(frozen=True)
class _Name:
    """A class or function of a pickle."""

    name: str


_MARK = object()
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")


def _object(stream: io.BytesIO, path: Path) -> Any:
    """The next object of a stream of pickles: tensors, dicts, lists, tuples, texts and numbers; the rest is None.

    Raises:
        DataError: it names a class that `torch.load(weights_only=True)` would not make.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "MARK":
            stack.append(_MARK)
        elif operation.name in _PUTS:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif operation.name in _GETS:
            stack.append(memo[argument])
        else:
            result = _result(operation.name, argument, _taken(stack, operation), path)
            stack += [result] * len(operation.stack_after)
    return result


def _taken(stack: list[Any], operation: pickletools.OpcodeInfo) -> list[Any]:
    """What an operation takes from the stack: so many objects, and all above the last mark if it asks for one."""
    kinds = [kind.name for kind in operation.stack_before]
    above: list[Any] = []
    if "mark" in kinds:
        start = len(stack) - stack[::-1].index(_MARK)
        above = stack[start:]
        del stack[start - 1 :]
        kinds = kinds[: kinds.index("mark")]
    below = [stack.pop() for _ in kinds]
    return [*below[::-1], *above]


def _result(operation: str, argument: Any, taken: list[Any], path: Path) -> Any:
    """What an operation puts in the place of what it takes."""
    match operation:
        case "GLOBAL" | "INST" | "STACK_GLOBAL":
            name = str(argument).replace(" ", ".") if argument else ".".join(taken)
            if not _is_known(name):
                raise DataError(
                    f"{path}: expected tensors, got an object of class {name}, which is not unpickled, as that could "
                    "run code: load the file where it comes from and save its state_dict() alone"
                )
            return _Name(name)
        case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
            return _made(taken[0], taken[1])
        case "EMPTY_DICT" | "DICT":
            return _put({}, taken)
        case "SETITEM" | "SETITEMS":
            return _put(taken[0], taken[1:])
        case "EMPTY_LIST" | "LIST" | "EMPTY_SET" | "FROZENSET":
            return taken
        case "APPEND" | "APPENDS" | "ADDITEMS" if isinstance(taken[0], list):
            taken[0].extend(taken[1:])
            return taken[0]
        case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
            return tuple(taken)
        case "BUILD" | "DUP" | "STOP" | "BINPERSID":
            return taken[0]
    return argument


def _put(target: Any, items: list[Any]) -> Any:
    """Add keys and values, in turn, to a dict; keys of other kinds than names and numbers are left out."""
    if isinstance(target, dict):
        target.update((k, v) for k, v in zip(items[::2], items[1::2], strict=True) if isinstance(k, (str, int)))
    return target


def _made(made: Any, arguments: Any) -> Any:
    """What a call of a class or function gives."""
    name = made.name if isinstance(made, _Name) else ""
    function = name.rpartition(".")[2]
    if name == "collections.OrderedDict":
        return _put({}, [part for pair in arguments[0] for part in pair] if arguments else [])
    if function.startswith("_rebuild_parameter"):
        return arguments[0]
    if function in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        # A storage is ("storage", class, member, device, size).
        return Header(tuple(map(int, arguments[2])), str(arguments[0][2]))
    return Header(None) if function.startswith("_rebuild") else None
