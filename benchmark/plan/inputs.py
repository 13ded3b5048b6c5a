"""Identity of inputs: what a file, zip or folder holds, not where it lies, when it was written or what lies beside it.

A folder is the relative names and sizes of its files, and a zip the names, sizes and checksums of its members. Content
is read whole up to `WHOLE_BYTES`; of larger inputs a sample is read, because hashing every image of ImageNet would take
longer than a plan is worth, and the stage that uses them reads them all.

OUT/inputs/<identity>.json.gz                 files of the inputs of a run, to name those that change later
~/.cache/sra-bench/inputs/<place>.json.gz     names and sizes of a large input, as long as the times of its folders stay
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import heapq
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmark.plan.run_directory import key_of
from sra.common.files import cache_file, is_embedded, write_bytes
from sra.common.listing import DATASET_JSON, IMAGE_FORMATS, OTHER_IMAGES, list_folder, list_names, times_of

WHOLE_BYTES = 2**26
"""Inputs of at most this size are read whole."""
SAMPLED_FILES = 256
"""Files of a larger folder of which content is read."""
BLOCK_BYTES, BLOCKS = 2**16, 128
"""What is read of larger inputs: that many blocks, divided among the sampled files, but at least two of each."""
CACHED_FILES = 20_000
"""Inputs with at least so many files are not listed at every start."""
CACHE = ("inputs", "SRA_BENCH_INPUTS")
"""Folder of these listings, and the environment variable that moves it."""
SHOWN_FILES = 3
"""How many added, removed and changed files are named."""
DATA_SUFFIXES = {
    *(suffix for suffixes in (*IMAGE_FORMATS.values(), OTHER_IMAGES) for suffix in suffixes),
    *(".json", ".npy", ".npz", ".pb", ".pt", ".pth", ".safetensors", ".zip"),
}
"""Files that something reads; beside them, a README changes no input."""
LABELS = (DATASET_JSON, "labels.npy")
"""Files that are read whole: with other labels they often have the same size."""

Files = dict[str, tuple[int, str | None]]
"""Size in bytes and checksum by relative name; None: not read. A checksum begins with how it was taken."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An input as it enters the keys of stages."""

    path: str
    now: list[str]
    """Identity of its content; the last item is `absent` if it does not exist."""
    files: Files

    @functools.cached_property
    def before(self) -> list[Any]:
        """Identity in version 0.1.0: place, size and time."""
        given = is_embedded(self.path) or self.now[-1] == "absent"
        return self.now if given else _by_time(Path(self.path))


Look = Callable[[str], Place]
"""`examine`, or a function that remembers what it found."""


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """A stored listing."""

    files: Files
    times: dict[str, list[int]] = field(default_factory=dict)
    """Of the folders, by relative name; an empty name is the input itself."""


_LISTING = TypeAdapter(_Listing)


def examine(place: str) -> Place:
    """Look at an input.

    Raises:
        DataError: a link that leads nowhere.
        OSError: it cannot be read.
    """
    path = Path(place)
    if is_embedded(place):
        return Place(path=place, now=[place], files={})
    if not (path.is_file() or path.is_dir()):
        return Place(path=place, now=[place, "absent"], files={})
    form, files = ("folder", _folder(path)) if path.is_dir() else _file(path)
    listed = [[name, size, checksum] for name, (size, checksum) in sorted(files.items())]
    return Place(path=place, now=[form, key_of(listed)], files=files)


def _by_time(path: Path) -> list[Any]:
    """Identity as version 0.1.0 took it."""
    status = path.stat()
    if path.is_file():
        return [str(path.resolve()), status.st_size, status.st_mtime_ns]
    entries = [(entry.name, entry) for entry in os.scandir(path) if entry.is_dir() or entry.is_file()]
    found = [(name, e.stat().st_mtime_ns if e.is_dir() else e.stat().st_size) for name, e in entries]
    return [str(path.resolve()), key_of(sorted(found))]


def _file(path: Path) -> tuple[str, Files]:
    """`zip` or `file`, and the members of a zip, or the file itself under an empty name."""
    with contextlib.suppress(zipfile.BadZipFile, NotImplementedError):
        if zipfile.is_zipfile(path) and (members := _cached(path) or _members(path)):
            return "zip", members
    size = path.stat().st_size
    return "file", {"": (size, _checksum(path, BLOCKS if size > WHOLE_BYTES else None))}


def _members(path: Path) -> Files:
    """Members of a zip; none if it lacks their checksums, as torch can write it."""
    times = _times(path, [""])
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    # Below torch's folder, which is named as the file that was written first, perhaps a hidden one, all is data.
    data = list_names(member.filename for member in members).names or {member.filename for member in members}
    if any(m.file_size and not m.CRC for m in members if m.filename in data):
        return {}
    files: Files = {m.filename: (m.file_size, f"crc32 {m.CRC:08x}") for m in members if m.filename in data}
    _cache(path, files, times)
    return files


def _folder(path: Path) -> Files:
    """Files of a folder with their sizes, and checksums of a sample, or of all if there is little to read."""
    files = _cached(path)
    if files is None:
        listing = list_folder(path)
        files = {name: ((path / name).stat().st_size, None) for name in _data(listing.names)}
        _cache(path, files, listing.times)
    whole = sum(size for size, _ in files.values()) <= WHOLE_BYTES
    chosen = files if whole else heapq.nsmallest(SAMPLED_FILES, files, key=lambda name: zlib.crc32(os.fsencode(name)))
    blocks = None if whole else max(2, BLOCKS // len(chosen))
    labels = [name for name in files if PurePosixPath(name).name in LABELS]
    read = {**dict.fromkeys(chosen, blocks), **dict.fromkeys(labels)}
    return {**files, **{n: ((path / n).stat().st_size, _checksum(path / n, parts)) for n, parts in read.items()}}


def _data(names: Iterable[str]) -> set[str]:
    """Names of files that something reads; all of them if no suffix says so."""
    everything = set(names)
    return {n for n in everything if PurePosixPath(n).suffix.lower() in DATA_SUFFIXES} or everything


def _checksum(path: Path, blocks: int | None) -> str:
    """SHA-256 of a file, or of blocks at equal distances, the first and the last among them."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        if blocks is None or size <= blocks * BLOCK_BYTES:
            return f"sha256 {hashlib.file_digest(handle, 'sha256').hexdigest()[:32]}"
        digest = hashlib.sha256()
        for block in range(blocks):
            handle.seek(block * (size - BLOCK_BYTES) // (blocks - 1))
            digest.update(handle.read(BLOCK_BYTES))
    return f"blocks {digest.hexdigest()[:32]}"


# -- stored listings ------------------------------------------------------------------------------------------------


def _save(path: Path, listing: _Listing) -> None:
    text = json.dumps({"files": listing.files, "times": listing.times})
    write_bytes(path, gzip.compress(text.encode(), compresslevel=1, mtime=0))


def _load(path: Path) -> _Listing | None:
    """The listing in a file; None where there is none or it is damaged."""
    try:
        return _LISTING.validate_json(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, ValidationError):
        return None


def _cache_file(path: Path) -> Path:
    return cache_file(*CACHE) / f"{key_of(str(path.resolve()))}.json.gz"


def _times(path: Path, folders: Iterable[str]) -> dict[str, list[int]]:
    """Times of folders below a path, which change when a name comes or goes."""
    return {name: times_of((path / name).stat()) for name in folders}


def _cached(path: Path) -> Files | None:
    """Names and sizes as they were listed last, if nothing has come or gone since."""
    # Without a home folder, or with one that cannot be read, everything is listed each time.
    with contextlib.suppress(OSError, RuntimeError):
        found = _load(_cache_file(path))
        if found is not None and found.times == _times(path, found.times):
            return found.files
    return None


def _cache(path: Path, files: Files, times: Mapping[str, list[int]]) -> None:
    """Store a listing with the times before it was taken: what came since is then seen next time."""
    if len(files) >= CACHED_FILES:
        with contextlib.suppress(OSError, RuntimeError):
            _save(_cache_file(path), _Listing(files=files, times=dict(times)))


def _record(root: Path, identity: list[str]) -> Path:
    return root / "inputs" / f"{identity[-1]}.json.gz"


def record_inputs(root: Path, places: Iterable[Place]) -> None:
    """Write the files of a run's inputs to its directory, each content once."""
    for place in places:
        if place.files and not _record(root, place.now).is_file():
            _save(_record(root, place.now), _Listing(files=place.files))


def difference(root: Path, before: list[str], place: Place) -> str | None:
    """Which files of an input have changed, in words; None if they were not recorded.

    Args:
        root: run directory.
        before: identity of the input at that time.
        place: the input as it is.
    """
    listing = _load(_record(root, before))
    if listing is None:
        return None
    old, new = listing.files, place.files
    both = sorted(old.keys() & new.keys())
    found = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": [name for name in both if _differ(old[name], new[name])],
    }
    return ", ".join(_named(what, names) for what, names in found.items() if names) or None


def _differ(old: tuple[int, str | None], new: tuple[int, str | None]) -> bool:
    """Whether size or checksum differ; checksums that were taken in different ways are not compared."""
    methods = {checksum.split()[0] if checksum else None for checksum in (old[1], new[1])}
    return old[0] != new[0] or (len(methods) == 1 and old[1] != new[1])


def _named(what: str, names: list[str]) -> str:
    shown = ", ".join(name for name in names[:SHOWN_FILES] if name)
    more = ", ..." if len(names) > SHOWN_FILES else ""
    return f"{len(names)} {what}" + (f" ({shown}{more})" if shown else "")
