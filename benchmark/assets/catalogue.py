"""Files that the suite uses and does not ship: `asset:NAME` to a place, what is there, and what it must be.

The catalogue is `assets.yaml`. Hashes that nobody has published are recorded on first use in `pins.json` beside the
files; from then on another content under the same name is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from benchmark.machine.environment import ASSETS_FOLDER
from sra.common.errors import UserError, did_you_mean
from sra.common.files import sha256_file, write_json
from sra.config import STRICT

PREFIX = "asset:"
DEFAULT_FOLDER = "~/.cache/sra-bench/assets"


class AssetError(UserError):
    """An asset that does not exist, is not there, or is not what it must be."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one file; None: not known."""

    __pydantic_config__ = STRICT

    size: int | None = None
    """Bytes."""
    sha256: str | None = None
    """Hexadecimal."""
    sha256_prefix: str | None = None
    """Leading digits of the hash, where the file's name carries them."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One entry of the catalogue: from a hub, from an address, or by hand."""

    __pydantic_config__ = STRICT

    name: str
    what: str
    hub: str | None = None
    """Repository of huggingface.co."""
    revision: str | None = None
    """Commit of the hub."""
    url: str | None = None
    """Address of its only file."""
    folder: bool = False
    """Whether `asset:NAME` means the folder of its files rather than its only file."""
    files: dict[str, Facts] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    """Scoring tools that need it."""
    variable: str | None = None
    """Environment variable that names its place, for what is too large to be copied."""
    manual: str | None = None
    """How a person gets it, where no program may."""

    def __post_init__(self) -> None:
        sources = [s for s in (self.hub, self.url, self.manual) if s is not None]
        assert len(sources) == 1, f"{self.name}: exactly one of hub, url and manual"
        assert self.url is None or self.url.startswith(("https://", "http://")), self.url
        assert (self.variable is not None) == (self.manual is not None), self.name
        assert self.folder or self.variable or len(self.files) == 1, self.name

    def place(self, root: Path) -> Path:
        """Its file or folder."""
        if self.variable:
            return Path(os.environ.get(self.variable) or f"${self.variable}")
        return root / self.name / ("" if self.folder else next(iter(self.files)))

    def missing(self, root: Path) -> list[Path]:
        """Its files, or its place, that are not there."""
        if self.variable:
            place = self.place(root)
            return [] if place.exists() else [place]
        return [path for name in self.files if not (path := root / self.name / name).is_file()]

    def address(self, file: str) -> str:
        """Where a browser finds one of its files."""
        if self.url:
            return self.url
        return f"https://huggingface.co/{self.hub}/resolve/{self.revision or 'main'}/{file}"


@cache
def catalogue() -> dict[str, Asset]:
    """Every asset by name."""
    entries = yaml.safe_load((Path(__file__).parent / "assets.yaml").read_text(encoding="utf-8"))
    adapter = TypeAdapter(Asset)
    return {name: adapter.validate_python({"name": name, **entry}) for name, entry in entries.items()}


def folder() -> Path:
    """Where assets lie: $SRA_BENCH_ASSETS, or the default below the home folder."""
    return Path(os.environ.get(ASSETS_FOLDER) or DEFAULT_FOLDER).expanduser().absolute()


def find(name: str) -> Asset:
    """One asset.

    Raises:
        AssetError: no such name; the nearest is named.
    """
    known = catalogue()
    if name not in known:
        raise AssetError(f"no asset {name!r}{did_you_mean(name, known)}; `sra-bench fetch` lists them")
    return known[name]


def located(place: str) -> str:
    """`asset:NAME` as an absolute path; any other place as it is.

    Raises:
        AssetError: no such asset.
    """
    return str(find(place.removeprefix(PREFIX)).place(folder())) if place.startswith(PREFIX) else place


def remedy(place: str) -> str:
    """How to get an absent input, in a few words; empty where the suite does not know."""
    for name in re.findall(r"\$\{?(\w+)", place):
        how = next((a.manual for a in catalogue().values() if a.variable == name), None)
        return f"the environment variable {name} is not set" + (f": {how}" if how else "")
    for asset in catalogue().values():
        if place == str(asset.place(folder())):
            return asset.manual or f"`sra-bench fetch {asset.name}`"
    return ""


def used_by(places: list[str], tools: list[str]) -> list[Asset]:
    """Assets that places and scoring tools mean, in the catalogue's order."""
    return [a for a in catalogue().values() if set(a.tools) & set(tools) or any(_means(place, a) for place in places)]


def weights_of(tool: str) -> list[Path]:
    """A scoring tool's own weights that are there: in their asset's folder, or in the assets folder itself."""
    root = folder()
    files = [(asset.name, file) for asset in catalogue().values() if tool in asset.tools for file in asset.files]
    return [path for name, file in files for path in (root / name / file, root / file) if path.is_file()]


def _means(place: str, asset: Asset) -> bool:
    if asset.variable:
        return place.startswith(str(asset.place(folder())))
    return place == PREFIX + asset.name


class Pins:
    """What the files of one assets folder were when they were first used."""

    def __init__(self, root: Path) -> None:
        """Read `pins.json`.

        Raises:
            AssetError: it is there and damaged.
        """
        self.root, self.path = root, root / "pins.json"
        self.entries = _read_pins(self.path)

    def facts(self, asset: Asset, file: str) -> Facts:
        """What a file must be: the catalogue's facts, then the recorded ones."""
        known, pin = asset.files[file], self._pin(asset, file)
        return Facts(
            size=known.size if known.size is not None else pin.get("size"),
            sha256=known.sha256 or pin.get("sha256"),
            sha256_prefix=known.sha256_prefix,
        )

    def revision(self, asset: Asset) -> str | None:
        """Commit of the hub: the catalogue's, then the recorded one."""
        return asset.revision or self.entries.get(asset.name, {}).get("revision")

    def record(self, asset: Asset, file: str, sha256: str, revision: str | None = None) -> bool:
        """Keep what a file is; a folder that cannot be written is warned of, not fatal. Returns whether it was kept."""
        status = (self.root / asset.name / file).stat()
        entry = self.entries.setdefault(asset.name, {"files": {}})
        if revision is not None:
            entry["revision"] = revision
        first = self._pin(asset, file).get("recorded") or datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "recorded": first}
        entry["files"][file] = facts
        try:
            write_json(self.path, {"schema": 1, "assets": self.entries})
        except OSError as error:
            print(f"warning: {self.path}: hash of {asset.name} cannot be recorded: {error.strerror}", flush=True)
            return False
        return True

    def unchanged(self, asset: Asset, file: str) -> bool:
        """Whether a file has the size and time that it had when it was last read in full."""
        status, pin = (self.root / asset.name / file).stat(), self._pin(asset, file)
        return (pin.get("size"), pin.get("mtime_ns")) == (status.st_size, status.st_mtime_ns)

    def _pin(self, asset: Asset, file: str) -> dict[str, Any]:
        found: dict[str, Any] = self.entries.get(asset.name, {}).get("files", {}).get(file, {})
        return found


def known_hashes() -> dict[str, str]:
    """SHA-256 of the catalogue's files where somebody has published it, by file name or, in folders, asset/name."""
    return {
        _label(asset, file): facts.sha256
        for asset in catalogue().values()
        for file, facts in asset.files.items()
        if facts.sha256
    }


def recorded_hashes(places: list[str]) -> dict[str, str]:
    """The same of the assets among `places` as they lie on this machine."""
    pins = Pins(folder())
    found = {(a, file): pins.facts(a, file).sha256 for a in used_by(places, []) for file in a.files}
    return {_label(asset, file): sha256 for (asset, file), sha256 in found.items() if sha256}


def _label(asset: Asset, file: str) -> str:
    return f"{asset.name}/{file}" if asset.folder else file


def _read_pins(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        entries: dict[str, Any] = TypeAdapter(dict[str, Any]).validate_json(path.read_bytes())["assets"]
    except (ValueError, KeyError) as error:
        raise AssetError(f"{path}: damaged; restore it, or remove it to record every hash anew") from error
    return entries


def mismatch(facts: Facts, size: int, sha256: str | None) -> str | None:
    """What differs from the known facts, in words; None: nothing that is known."""
    if facts.size is not None and size != facts.size:
        return f"{size:,} bytes, expected {facts.size:,}"
    if sha256 is not None and facts.sha256 is not None and sha256 != facts.sha256:
        return f"SHA-256 {sha256}, expected {facts.sha256}"
    if sha256 is not None and facts.sha256_prefix is not None and not sha256.startswith(facts.sha256_prefix):
        return f"SHA-256 {sha256}, expected {facts.sha256_prefix}..."
    return None


def verify(asset: Asset, pins: Pins) -> None:
    """Check that the files of an asset are what they must be; record those seen for the first time.

    A file whose size and time are those of its last check is not read again.

    Raises:
        AssetError: another content than the one known or recorded.
    """
    for file in asset.files:
        path = pins.root / asset.name / file
        if not path.is_file() or pins.unchanged(asset, file):
            continue
        facts = pins.facts(asset, file)
        sha256 = sha256_file(path) if mismatch(facts, path.stat().st_size, None) is None else None
        wrong = mismatch(facts, path.stat().st_size, sha256)
        if wrong or sha256 is None:
            raise AssetError(f"{path}: {wrong}; remove it and `sra-bench fetch {asset.name}` again")
        if pins.record(asset, file, sha256) and facts.sha256 is None:
            print(f"{asset.name}: SHA-256 {sha256} recorded in {pins.path}", flush=True)
