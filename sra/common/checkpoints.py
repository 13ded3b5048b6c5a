"""Look into files of weights without loading them: formats, and the classes that a pickle names. Torch-free."""

from __future__ import annotations

import io
import json
import pickletools
from collections.abc import Iterator
from pathlib import Path

from sra.common.archives import open_archive, open_member
from sra.common.errors import DataError

SAFETENSORS = ".safetensors"
HEADER_BYTES = 8
"""Of safetensors: the length of the JSON header."""
MAX_HEADER_BYTES, MAX_PICKLE_BYTES = 100_000_000, 1 << 28
ZIP_START = b"PK\3\4"
LEGACY_PICKLES = 4
"""Before the tensors of a file that torch wrote until 1.5: magic number, version, machine, object."""
KNOWN_CLASSES = ("collections.OrderedDict", "collections.Counter", "_codecs.encode", "argparse.Namespace")
"""What `torch.load(weights_only=True)` makes besides torch's own and builtins, and what published files pickle."""
KNOWN_BUILTINS = ("set", "bytearray", "complex")


def check_weights(path: Path) -> None:
    """Refuse a file that can hold no weights, or that holds objects which only unsafe unpickling makes.

    Raises:
        DataError: what was found instead; of a pickle, the first class.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a checkpoint, got {'a folder' if path.is_dir() else 'no file'}")
    if path.suffix == SAFETENSORS:
        _check_safetensors(path)
        return
    unknown = next((name for name in _classes(path) if not _is_known(name)), None)
    if unknown is not None:
        raise DataError(
            f"{path}: expected tensors, got an object of class {unknown}, which is not unpickled, as that could run "
            "code: load the file where it comes from and save its state_dict() alone"
        )


def _check_safetensors(path: Path) -> None:
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(HEADER_BYTES), "little")
        header = handle.read(length) if 0 < length <= MAX_HEADER_BYTES else b""
    try:
        names = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in names.items() if name != "__metadata__"]
        whole = HEADER_BYTES + length + max(ends, default=0) == path.stat().st_size
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: expected a safetensors file, got another format") from error
    if not whole:
        raise DataError(f"{path}: expected a whole safetensors file, got one of another size than its header says")


def _is_known(name: str) -> bool:
    module, _, rest = name.partition(".")
    builtin = module in ("builtins", "__builtin__") and rest in KNOWN_BUILTINS
    return module == "torch" or builtin or name in KNOWN_CLASSES


def _classes(path: Path) -> Iterator[str]:
    """Full names of the classes and functions that the pickles of a file name."""
    with path.open("rb") as handle:
        if handle.read(len(ZIP_START)) != ZIP_START:
            handle.seek(0)
            stream, count = io.BytesIO(handle.read(MAX_PICKLE_BYTES)), LEGACY_PICKLES
        else:
            stream, count = io.BytesIO(_pickle_of(path)), 1
    try:
        for _ in range(count):
            yield from _named(stream)
    except (ValueError, UnicodeDecodeError, RecursionError, OverflowError) as error:
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


def _named(stream: io.BytesIO) -> Iterator[str]:
    texts: list[str] = []
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
