"""`sra-bench images build|list`: build the suite's container images from a checkout, in order, and list them."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmark.containers.engine import CUDA_LABEL, EngineError, Image, find_engine, find_image, run
from benchmark.machine import provenance
from sra.common.errors import one_of
from sra.common.tables import text_table

IMAGES = ("trainer", "evaluator", "all")
"""In building order: the last is made from the other two."""
REPOSITORY = "localhost/sra-bench"
"""Under `localhost/` no engine pulls an image of the same name from a registry."""
IMAGE_COLUMNS = ("image", "GB", "version", "revision", "CUDA", "created")
SHORT_REVISION = 12
"""Characters of a revision that are shown."""


@dataclass(frozen=True)
class Checkout:
    """Source that images are built from."""

    root: Path
    version: str
    revision: str
    """Commit, with `-dirty` if there are uncommitted changes."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """Options of a build."""

    base: str | None = None
    """Base image; default: the one that the Containerfiles pin."""
    cuda: str = "cu130"
    """CUDA version, as in containers/requirements/torch-NAME.txt."""
    uid: int = 1000
    """User id that the images run as."""
    repository: str = REPOSITORY
    tag: str | None = None
    """Default: the suite's version."""
    options: tuple[str, ...] = ()
    """Further options of the engine's build."""

    def reference(self, name: str, source: Checkout) -> str:
        """Full name of an image of this build."""
        return reference_of(name, self.tag or source.version, self.repository)


def checkout(root: Path | None = None) -> Checkout:
    """Describe the checkout that this program runs from, or that is the current folder.

    Raises:
        EngineError: neither holds `containers/`.
    """
    places = [root] if root else [Path(__file__).resolve().parents[2], Path.cwd()]
    found = next((place for place in places if (place / "containers" / "trainer.Containerfile").is_file()), None)
    if found is None:
        raise EngineError(f"{places[-1]}: no containers/trainer.Containerfile; images need a checkout of the suite")
    document = tomllib.loads((found / "pyproject.toml").read_text(encoding="utf-8"))
    return Checkout(found, document["project"]["version"], provenance.revision(found))


def installed_version() -> str:
    """Version of the suite, the default tag of its images."""
    try:
        return metadata.version("sra-bench")
    except metadata.PackageNotFoundError:
        return checkout().version


def in_building_order(names: list[str]) -> list[str]:
    """Names of images in building order; all of them if none is given.

    Raises:
        EngineError: no such image.
    """
    for name in names:
        if name not in IMAGES:
            raise EngineError(one_of("image", name, IMAGES))
    return [name for name in IMAGES if name in names or not names]


def reference_of(name: str, tag: str | None = None, repository: str = REPOSITORY) -> str:
    """Full name of an image."""
    return f"{repository}/{name}:{tag or installed_version()}"


def build_argv(engine: str, name: str, build: Build, source: Checkout) -> list[str]:
    """Command line that builds an image."""
    if name == "all":
        arguments = {part.upper(): build.reference(part, source) for part in IMAGES[:2]}
    else:
        arguments = {"VERSION": source.version, "REVISION": source.revision, "UID": str(build.uid)}
        arguments |= {"CUDA": build.cuda} if name == "trainer" else {}
        arguments |= {"BASE": build.base} if build.base else {}
        url = _public_url(source.root)
        arguments |= {"SOURCE": url} if url else {}
    given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    file = str(source.root / "containers" / f"{name}.Containerfile")
    tagged = ["--tag", build.reference(name, source)]
    return [engine, "build", "--file", file, *tagged, *given, *build.options, str(source.root)]


def _public_url(root: Path) -> str | None:
    """Where the source is published; None for a local path or a URL with a password in it."""
    command = ["git", "-C", str(root), "config", "--get", "remote.origin.url"]
    url = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return url if url.startswith("https://") and "@" not in url else None


def build_images(names: list[str], engine: str | None, build: Build, *, dry_run: bool = False) -> str:
    """Build images in order; returns what was built, or with `dry_run` the command lines.

    Raises:
        EngineError: no engine, no checkout, no requirements for that CUDA, or a build that failed.
    """
    ordered, source = in_building_order(names), checkout()
    file = source.root / "containers" / "requirements" / f"torch-{build.cuda}.txt"
    if "trainer" in ordered and not file.is_file():
        there = [path.stem.removeprefix("torch-") for path in sorted(file.parent.glob("torch-*.txt"))]
        raise EngineError(f"{one_of('--cuda', build.cuda, there)}; no {file}, see docs/containers.md")
    if dry_run:
        return "\n".join(shlex.join(build_argv(engine or "docker", name, build, source)) for name in ordered)
    tool = find_engine(engine)
    if ordered == ["all"]:
        _check_parts(tool, build, source)
    return "\n".join(_build_one(tool, name, build, source) for name in ordered)


def _check_parts(engine: str, build: Build, source: Checkout) -> None:
    """Refuse to build `all` from images that are absent or of another revision."""
    for name in IMAGES[:2]:
        reference = build.reference(name, source)
        found = find_image(engine, reference).revision
        if found != source.revision:
            raise EngineError(
                f"{reference}: made from revision {found}, this checkout is {source.revision}; "
                f"`sra-bench images build {name}` makes it anew"
            )


def _build_one(engine: str, name: str, build: Build, source: Checkout) -> str:
    command, reference = build_argv(engine, name, build, source), build.reference(name, source)
    print(shlex.join(command), flush=True)
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise EngineError(f"{reference}: {engine} build ended with exit code {code}; its output is above")
    return f"{reference}  {find_image(engine, reference).bytes / 1e9:.2f} GB"


def list_images(engine: str | None, *, as_json: bool = False) -> str:
    """List the suite's images that an engine has: names, sizes, labels.

    Raises:
        EngineError: no engine.
    """
    tool = find_engine(engine)
    ids = list(dict.fromkeys(run(tool, "images", "--quiet", "--no-trunc", "--filter", f"label={CUDA_LABEL}").split()))
    inspected = json.loads(run(tool, "image", "inspect", *ids)) if ids else []
    found = sorted((i for i in map(Image.from_inspect, inspected) if i.names), key=lambda image: str(image.names))
    if as_json:
        document = {"schema": 1, "engine": tool, "images": [dataclasses.asdict(image) for image in found]}
        return json.dumps(document, indent=2)
    if not found:
        return f"{tool} has none of the suite's images; `sra-bench images build` makes them"
    rows: list[tuple[str, ...]] = []
    for image in found:
        revision = image.revision or "?"
        short = revision[:SHORT_REVISION] + ("-dirty" if revision.endswith("-dirty") else "")
        rest = (image.version or "?", short, image.cuda or "-", str(image.created)[:19])
        rows += [(name, f"{image.bytes / 1e9:.2f}", *rest) for name in image.names]
    return text_table(IMAGE_COLUMNS, rows, left=range(len(IMAGE_COLUMNS)))
