"""Files that the suite uses and does not ship: what `asset:NAME` means, where it is, and what it must contain.

The catalogue is `assets.yaml`. Hashes that nobody has published are recorded on first use in `pins.json` beside the
files; from then on other content under the same name is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from benchmark.machine.environment import ASSETS_FOLDER
from sra.common.errors import UserError, expected
from sra.common.files import home_path, sha256_file, write_json
from sra.config import STRICT

PREFIX = "asset:"
DEFAULT_FOLDER = "~/.cache/sra-bench/assets"


class AssetError(UserError):
    """An asset that does not exist, is absent, or has other content than expected."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one file; None: not known."""

    __pydantic_config__ = STRICT

    size: int | None = None
    """Bytes."""
    sha256: str | None = None
    """Hexadecimal."""
    sha256_prefix: str | None = None
    """Leading digits of the hash, if the name of the file carries them."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One entry of the catalogue: on the Hugging Face hub, at a URL, or to obtain by hand."""

    __pydantic_config__ = STRICT

    name: str
    what: str
    hub: str | None = None
    """Repository of huggingface.co."""
    revision: str | None = None
    """Commit of the repository."""
    url: str | None = None
    """Of its only file."""
    folder: bool = False
    """Whether `asset:NAME` means the folder of its files rather than its only file."""
    files: dict[str, Facts] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    """Scoring tools that need it."""
    variable: str | None = None
    """Environment variable with its path, for data sets that are too large to copy."""
    manual: str | None = None
    """How to obtain it by hand, if no program may."""

    def __post_init__(self) -> None:
        sources = [s for s in (self.hub, self.url, self.manual) if s is not None]
        assert len(sources) == 1, f"{self.name}: exactly one of hub, url and manual"
        assert self.url is None or self.url.startswith(("https://", "http://")), self.url
        assert self.variable is None or self.manual is not None, self.name
        assert self.folder or self.variable or len(self.files) == 1, self.name

    def place(self, root: Path) -> Path:
        """Path of its file or folder."""
        if self.variable:
            return Path(os.environ.get(self.variable) or f"${self.variable}")
        return root / self.name / ("" if self.folder else next(iter(self.files)))

    def by_hand(self, root: Path) -> str | None:
        """How to obtain it by hand and where it belongs; None if it can be fetched."""
        return (
            self.manual if self.manual is None or self.variable else f"{self.manual} and save it as {self.place(root)}"
        )

    def missing(self, root: Path) -> list[Path]:
        """Paths of its files that are absent."""
        if self.variable:
            place = self.place(root)
            return [] if place.exists() else [place]
        return [path for name in self.files if not (path := root / self.name / name).is_file()]

    def address(self, file: str) -> str:
        """URL of one of its files."""
        return self.url or f"https://huggingface.co/{self.hub}/resolve/{self.revision or 'main'}/{file}"

    def label(self, file: str) -> str:
        """Name of one of its files in lists of hashes."""
        return f"{self.name}/{file}" if self.folder else file

    def is_at(self, place: str) -> bool:
        """Whether a place that a manifest names means this asset."""
        if self.variable:
            return place.startswith(str(self.place(folder())))
        return place == PREFIX + self.name


@cache
def catalogue() -> dict[str, Asset]:
    """Every asset by name."""
    entries = yaml.safe_load((Path(__file__).parent / "assets.yaml").read_text(encoding="utf-8"))
    adapter = TypeAdapter(Asset)
    return {name: adapter.validate_python({"name": name, **entry}) for name, entry in entries.items()}


def folder() -> Path:
    """Folder of the assets: $SRA_BENCH_ASSETS, or the default below the home folder."""
    return home_path(os.environ.get(ASSETS_FOLDER) or DEFAULT_FOLDER).absolute()


def find(name: str) -> Asset:
    """One asset.

    Raises:
        AssetError: no such name.
    """
    known = catalogue()
    if name not in known:
        raise AssetError(expected("asset", "a name that `sra-bench fetch` lists", name, known))
    return known[name]


def located(place: str) -> str:
    """`asset:NAME` as an absolute path; any other place unchanged.

    Raises:
        AssetError: no such asset.
    """
    return str(find(place.removeprefix(PREFIX)).place(folder())) if place.startswith(PREFIX) else place


def remedy(place: str) -> str:
    """How to obtain an absent input, in a few words; empty if the suite does not know."""
    for name in re.findall(r"\$\{?(\w+)", place):
        how = next((a.manual for a in catalogue().values() if a.variable == name), None)
        return f"the environment variable {name} is not set" + (f": {how}" if how else "")
    for asset in catalogue().values():
        if place == str(asset.place(folder())):
            return asset.by_hand(folder()) or f"`sra-bench fetch {asset.name}`"
    return ""


def used_by(places: list[str], tools: list[str]) -> list[Asset]:
    """Assets that places of a manifest mean and that scoring tools need, in the catalogue's order."""
    return [a for a in catalogue().values() if set(a.tools) & set(tools) or any(map(a.is_at, places))]


def weights_of(tool: str) -> list[Path]:
    """Paths of a scoring tool's own weights that are present: in their asset's folder, or in the assets folder."""
    root = folder()
    files = [(asset.name, file) for asset in catalogue().values() if tool in asset.tools for file in asset.files]
    return [path for name, file in files for path in (root / name / file, root / file) if path.is_file()]


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """What a file was when it was last read in full."""

    sha256: str
    size: int
    mtime_ns: int
    recorded: str
    """Time of its first use."""


@dataclass(kw_only=True)
class PinnedAsset:
    """What the files of one asset were."""

    files: dict[str, PinnedFile] = field(default_factory=dict)
    revision: str | None = None
    """Commit of the hub that they came from."""


@dataclass(frozen=True, kw_only=True)
class PinsFile:
    """The document `pins.json`."""

    schema: int = 1
    assets: dict[str, PinnedAsset]


class Pins:
    """What the files of one assets folder were when they were first used."""

    def __init__(self, root: Path) -> None:
        """Read `pins.json`.

        Raises:
            AssetError: it is damaged.
        """
        self.root, self.path = root, root / "pins.json"
        self.assets: dict[str, PinnedAsset] = {}
        if self.path.is_file():
            try:
                self.assets = TypeAdapter(PinsFile).validate_json(self.path.read_bytes()).assets
            except ValueError as error:
                fix = "restore it, or remove it to record every hash anew"
                raise AssetError(f"{self.path}: damaged; {fix}") from error

    def facts(self, asset: Asset, file: str) -> Facts:
        """What a file must be: the facts of the catalogue, then the recorded ones."""
        known, pin = asset.files[file], self._pin(asset, file)
        return Facts(
            size=known.size if known.size is not None or pin is None else pin.size,
            sha256=known.sha256 if known.sha256 is not None or pin is None else pin.sha256,
            sha256_prefix=known.sha256_prefix,
        )

    def revision(self, asset: Asset) -> str | None:
        """Commit of the hub: that of the catalogue, else the recorded one."""
        return asset.revision or self.assets.get(asset.name, PinnedAsset()).revision

    def record(self, asset: Asset, file: str, sha256: str, revision: str | None = None) -> bool:
        """Record what a file is; returns whether it could: a folder that cannot be written is only warned of."""
        status, before = (self.root / asset.name / file).stat(), self._pin(asset, file)
        entry = self.assets.setdefault(asset.name, PinnedAsset())
        entry.revision = revision or entry.revision
        first = before.recorded if before else datetime.now(UTC).isoformat(timespec="seconds")
        entry.files[file] = PinnedFile(sha256=sha256, size=status.st_size, mtime_ns=status.st_mtime_ns, recorded=first)
        try:
            write_json(self.path, asdict(PinsFile(assets=self.assets)))
        except OSError as error:
            print(f"warning: {self.path}: hash of {asset.name} cannot be recorded: {error.strerror}", flush=True)
            return False
        return True

    def unchanged(self, asset: Asset, file: str) -> bool:
        """Whether a file has the size and time that it had when it was last read in full."""
        status, pin = (self.root / asset.name / file).stat(), self._pin(asset, file)
        return pin is not None and (pin.size, pin.mtime_ns) == (status.st_size, status.st_mtime_ns)

    def _pin(self, asset: Asset, file: str) -> PinnedFile | None:
        return self.assets.get(asset.name, PinnedAsset()).files.get(file)


def known_hashes() -> dict[str, str]:
    """Published SHA-256 of the catalogue's files, by file name or, in folders, asset/name."""
    files = [(asset, file, facts) for asset in catalogue().values() for file, facts in asset.files.items()]
    return {asset.label(file): facts.sha256 for asset, file, facts in files if facts.sha256}


def recorded_hashes(places: list[str]) -> dict[str, str]:
    """Known or recorded SHA-256 of the assets among places of a manifest, likewise."""
    pins = Pins(folder())
    found = {a.label(file): pins.facts(a, file).sha256 for a in used_by(places, []) for file in a.files}
    return {label: sha256 for label, sha256 in found.items() if sha256}


def mismatch(facts: Facts, size: int, sha256: str | None) -> str | None:
    """How a file differs from the known facts; None if it does not."""
    if facts.size is not None and size != facts.size:
        return f"{size:,} bytes, expected {facts.size:,}"
    if sha256 is not None and facts.sha256 is not None and sha256 != facts.sha256:
        return f"SHA-256 {sha256}, expected {facts.sha256}"
    if sha256 is not None and facts.sha256_prefix is not None and not sha256.startswith(facts.sha256_prefix):
        return f"SHA-256 {sha256}, expected {facts.sha256_prefix}..."
    return None


def verify(asset: Asset, pins: Pins) -> None:
    """Check the files of an asset that are present; record the hashes of those used for the first time.

    A file with the size and time of its last check is not read again.

    Raises:
        AssetError: other content than known or recorded.
    """
    for file in asset.files:
        path = pins.root / asset.name / file
        if not path.is_file() or pins.unchanged(asset, file):
            continue
        facts, size = pins.facts(asset, file), path.stat().st_size
        sha256 = sha256_file(path) if mismatch(facts, size, None) is None else None
        wrong = mismatch(facts, size, sha256)
        if wrong or sha256 is None:
            raise AssetError(f"{path}: {wrong}; remove it and `sra-bench fetch {asset.name}` again")
        if pins.record(asset, file, sha256) and facts.sha256 is None:
            print(f"{asset.name}: SHA-256 {sha256} recorded in {pins.path}", flush=True)
