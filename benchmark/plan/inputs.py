"""Identity of inputs: what a file, zip or folder holds, not where it lies, when it was written or what lies beside it.

A folder is the relative names and sizes of its files, and a zip the names, sizes and checksums of its members. Content
is read whole up to `WHOLE_BYTES`; of larger inputs a sample is read, because hashing every image of ImageNet would take
longer than a plan is worth, and the stage that uses them reads them all.

OUT/inputs/<identity>.json.gz                 files of the inputs of a run, to name those that change later
~/.cache/sra-bench/inputs/<place>.json.gz     names and sizes of a large input, as long as the times of its folders stay
~/.cache/sra-bench/inputs/<place>.seen.json.gz     its identity, as long as those and the files that are read stay
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import heapq
import json
import os
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from benchmark.plan.run_directory import key_of
from sra.common.files import cache_file, is_embedded, write_bytes
from sra.common.listing import (
    DATASET_JSON,
    IMAGE_FORMATS,
    KAGGLE_TRAIN,
    OTHER_IMAGES,
    list_folder,
    list_names,
    shards_of,
    suffix_of,
    times_of,
)

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
STAT_THREADS, STAT_FILES = 16, 1000
"""Threads that ask for sizes, and the files that each asks for at a time."""
SHOWN_FILES = 3
"""How many added, removed and changed files are named."""
KAGGLE = f"{KAGGLE_TRAIN}/"
IMAGE_SUFFIXES = {suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes}
DATA_SUFFIXES = {
    *IMAGE_SUFFIXES,
    *OTHER_IMAGES,
    *(".json", ".npy", ".npz", ".pb", ".pt", ".pth", ".safetensors", ".zip"),
}
"""Files that something reads; beside them, a README changes no input."""
LABELS = (DATASET_JSON, "labels.npy")
"""Files that are read whole: with other labels they often have the same size."""

L = TypeVar("L", bound="_Listing")
Files = dict[str, tuple[int, str | None]]
"""Size in bytes and checksum by relative name; None: not read. A checksum begins with how it was taken."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An input as it enters the keys of stages."""

    path: str
    now: list[str]
    """Identity of its content; the last item is `absent` if it does not exist."""
    known: Files | None = None
    """Its files; None: they are listed when they are asked for."""

    @functools.cached_property
    def files(self) -> Files:
        """Its files; a million of them take seconds."""
        return _listed(Path(self.path))[1].files if self.known is None else self.known

    @functools.cached_property
    def folder(self) -> str:
        """Where its images lie: in Kaggle's layout below that of the training split, else below the place itself."""
        return next((KAGGLE for name in self.files if name.startswith(KAGGLE)), "")

    @functools.cached_property
    def images(self) -> list[str]:
        """Names, relative to `folder`, of the files with an image's suffix."""
        names = [name.removeprefix(self.folder) for name in self.files if name.startswith(self.folder)]
        return [name for name in names if name[name.rfind(".") :].lower() in IMAGE_SUFFIXES]

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


@dataclass(frozen=True, kw_only=True)
class _Seen(_Listing):
    """The files of a stored listing that are read at every start, and the identity that they stand for."""

    now: list[str]
    blocks: int | None
    """Blocks to read of each file; None: all."""


_LISTING, _SEEN = TypeAdapter(_Listing), TypeAdapter(_Seen)


def examine(place: str) -> Place:
    """Look at an input.

    Raises:
        DataError: a link that leads nowhere.
        OSError: it cannot be read.
    """
    path = Path(place)
    if is_embedded(place):
        return Place(path=place, now=[place], known={})
    if not (path.is_file() or path.is_dir()):
        return Place(path=place, now=[place, "absent"], known={})
    seen = _load(_SEEN, _cache_file(path, "seen"))
    if seen and _is_current(path, seen.times) and _read(path, seen.files, seen.blocks) == seen.files:
        return Place(path=place, now=seen.now)
    form, listing = _listed(path)
    files = listing.files
    listed = [[name, size, checksum] for name, (size, checksum) in sorted(files.items())]
    now = [form, key_of(listed)]
    if listing.times:
        read = {name: facts for name, facts in files.items() if facts[1]} if form == "folder" else {}
        _store(path, _Seen(now=now, files=read, times=listing.times, blocks=_blocks(files)), "seen")
    return Place(path=place, now=now, known=files)


def _by_time(path: Path) -> list[Any]:
    """Identity as version 0.1.0 took it."""
    status = path.stat()
    if path.is_file():
        return [str(path.resolve()), status.st_size, status.st_mtime_ns]
    entries = [(entry.name, entry) for entry in os.scandir(path) if entry.is_dir() or entry.is_file()]
    found = [(name, e.stat().st_mtime_ns if e.is_dir() else e.stat().st_size) for name, e in entries]
    return [str(path.resolve()), key_of(sorted(found))]


def _listed(path: Path) -> tuple[str, _Listing]:
    """`folder`, `zip` or `file`; a file that is no zip has an empty name. Of few files, times are left out."""
    if path.is_dir():
        return "folder", _folder(path)
    with contextlib.suppress(zipfile.BadZipFile, NotImplementedError):
        if zipfile.is_zipfile(path) and (members := _cached(path) or _members(path)).files:
            return "zip", members
    size = path.stat().st_size
    return "file", _Listing(files={"": (size, _checksum(path, BLOCKS if size > WHOLE_BYTES else None))})


def _members(path: Path) -> _Listing:
    """Members of a zip; none if it lacks their checksums, as torch can write it."""
    times = _times(path, [""])
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    # Below torch's folder, which is named as the file that was written first, perhaps a hidden one, all is data.
    data = list_names(member.filename for member in members).names or {member.filename for member in members}
    if any(m.file_size and not m.CRC for m in members if m.filename in data):
        return _Listing(files={})
    return _cache(path, {m.filename: (m.file_size, f"crc32 {m.CRC:08x}") for m in members if m.filename in data}, times)


def _folder(path: Path) -> _Listing:
    """Files of a folder with their sizes, and checksums of a sample, or of all if there is little to read."""
    listing = _cached(path)
    if listing is None:
        found = list_folder(path)
        listing = _cache(path, _sizes(path, list(_data(found.names))), found.times)
    files, blocks = listing.files, _blocks(listing.files)
    chosen: Iterable[str] = files
    if blocks is not None:
        chosen = heapq.nsmallest(SAMPLED_FILES, files, key=lambda name: zlib.crc32(os.fsencode(name)))
    labels = [name for name in files if posixpath.basename(name) in LABELS]
    read = _read(path, [*chosen, *labels], blocks)
    return _Listing(files={**files, **read}, times=listing.times)


def _blocks(files: Files) -> int | None:
    """Blocks to read of each file of a sample; None: there is little to read, and all is read."""
    whole = sum(size for size, _ in files.values()) <= WHOLE_BYTES
    return None if whole else max(2, BLOCKS // min(len(files), SAMPLED_FILES))


def _sizes(path: Path, names: list[str]) -> Files:
    """Sizes of files, by several threads: on a file server each takes a millisecond."""

    def sizes(start: int) -> Files:
        part = names[start : start + STAT_FILES]
        return {name: (os.stat(f"{path}/{name}").st_size, None) for name in part}  # noqa: PTH116

    with ThreadPoolExecutor(STAT_THREADS) as pool:
        parts = pool.map(sizes, range(0, len(names), STAT_FILES))
        return {name: facts for part in parts for name, facts in part.items()}


def _read(path: Path, names: Iterable[str], blocks: int | None) -> Files:
    """Sizes and checksums of files as they are now."""
    wanted = {name: None if posixpath.basename(name) in LABELS else blocks for name in names}
    return {n: ((path / n).stat().st_size, _checksum(path / n, parts)) for n, parts in wanted.items()}


def _data(names: Iterable[str]) -> set[str]:
    """Names of files that something reads; all of them if no suffix says so."""
    everything = set(names)
    return {n for n in everything if suffix_of(n) in DATA_SUFFIXES} | set(shards_of(everything)) or everything


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
    text = json.dumps(vars(listing))
    write_bytes(path, gzip.compress(text.encode(), compresslevel=1, mtime=0))


def _load(form: TypeAdapter[L], path: Path | None) -> L | None:
    """The listing in a file; None where there is none or it is damaged."""
    try:
        return form.validate_json(gzip.decompress(path.read_bytes())) if path else None
    except (OSError, EOFError, zlib.error, ValidationError):
        return None


def _cache_file(path: Path, kind: str = "names") -> Path | None:
    """Where a listing is stored; None without a home folder, or with one that cannot be read."""
    with contextlib.suppress(OSError, RuntimeError):
        ending = "" if kind == "names" else f".{kind}"
        return cache_file(*CACHE) / f"{key_of(str(path.resolve()))}{ending}.json.gz"
    return None


def _times(path: Path, folders: Iterable[str]) -> dict[str, list[int]]:
    """Times of folders below a path, which change when a name comes or goes."""
    return {name: times_of((path / name).stat()) for name in folders}


def _is_current(path: Path, times: Mapping[str, list[int]]) -> bool:
    with contextlib.suppress(OSError):
        return times == _times(path, times)
    return False


def _cached(path: Path) -> _Listing | None:
    """Names and sizes as they were listed last, if nothing has come or gone since."""
    found = _load(_LISTING, _cache_file(path))
    return found if found and _is_current(path, found.times) else None


def _cache(path: Path, files: Files, times: Mapping[str, list[int]]) -> _Listing:
    """A listing, stored if it is long, with the times before it was taken: what came since is then seen next time."""
    if len(files) < CACHED_FILES:
        return _Listing(files=files)
    listing = _Listing(files=files, times=dict(times))
    _store(path, listing)
    return listing


def _store(path: Path, listing: _Listing, kind: str = "names") -> None:
    """Save a listing; where nothing can be stored, everything is listed each time."""
    place = _cache_file(path, kind)
    with contextlib.suppress(OSError):
        if place:
            _save(place, listing)


def _record(root: Path, identity: list[str]) -> Path:
    return root / "inputs" / f"{identity[-1]}.json.gz"


def record_inputs(root: Path, places: Iterable[Place]) -> None:
    """Write the files of a run's inputs to its directory, each content once."""
    for place in places:
        if not _record(root, place.now).is_file() and place.files:
            _save(_record(root, place.now), _Listing(files=place.files))


def difference(root: Path, before: list[str], place: Place) -> str | None:
    """Which files of an input have changed, in words; None if they were not recorded.

    Args:
        root: run directory.
        before: identity of the input at that time.
        place: the input as it is.
    """
    listing = _load(_LISTING, _record(root, before))
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
