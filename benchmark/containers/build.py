"""`sra-bench images build|list`: the suite's container images, made from a checkout, in order."""

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmark.containers.engine import EngineError, ask, find_engine, inspect, labels_of
from benchmark.machine import provenance
from sra.common.errors import did_you_mean

IMAGES = ("trainer", "evaluator", "all")
"""In the order in which they are built: the last is made from the other two."""
REPOSITORY = "localhost/sra-bench"
"""Under `localhost/` no engine takes a stranger's image of the same name from a registry."""
LABEL = "org.opencontainers.image"
CUDA_LABEL = "sra-bench.cuda"
SHORT = 12
"""Characters of a revision that are shown."""


@dataclass(frozen=True)
class Checkout:
    """What images are built from."""

    root: Path
    version: str
    revision: str
    """Commit, with `-dirty` after it where something is not committed."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """How images are built."""

    base: str | None = None
    """Base image; None: the one that the Containerfiles pin."""
    cuda: str = "cu130"
    """Generation of CUDA: names containers/requirements/torch-NAME.txt."""
    uid: int = 1000
    """Of the user that the images run as."""
    repository: str = REPOSITORY
    tag: str | None = None
    """None: the suite's version."""
    options: tuple[str, ...] = ()
    """Further options of the engine's build."""


def checkout(root: Path | None = None) -> Checkout:
    """The checkout that this program runs from, or that is the current folder.

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
    """The suite's version, as images are tagged."""
    try:
        return metadata.version("sra-bench")
    except metadata.PackageNotFoundError:
        return checkout().version


def chosen(names: list[str]) -> list[str]:
    """Names of images in building order; none: all of them.

    Raises:
        EngineError: no such image.
    """
    for name in names:
        if name not in IMAGES:
            raise EngineError(f"image {name!r}: allowed: {', '.join(IMAGES)}{did_you_mean(name, IMAGES)}")
    return [name for name in IMAGES if name in names or not names]


def reference_of(name: str, tag: str | None = None, repository: str = REPOSITORY) -> str:
    """An image's full name."""
    return f"{repository}/{name}:{tag or installed_version()}"


def build_argv(engine: str, name: str, build: Build, source: Checkout) -> list[str]:
    """The command line that builds an image."""
    tag = build.tag or source.version
    arguments = _arguments(name, build, source)
    if name == "all":
        arguments = {other.upper(): reference_of(other, tag, build.repository) for other in IMAGES[:2]}
    given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    file = str(source.root / "containers" / f"{name}.Containerfile")
    tagged = ["--tag", reference_of(name, tag, build.repository)]
    return [engine, "build", "--file", file, *tagged, *given, *build.options, str(source.root)]


def _arguments(name: str, build: Build, source: Checkout) -> dict[str, str]:
    """What an image with an environment of its own is built with."""
    arguments = {"VERSION": source.version, "REVISION": source.revision, "UID": str(build.uid)}
    arguments |= {"CUDA": build.cuda} if name == "trainer" else {}
    arguments |= {"BASE": build.base} if build.base else {}
    address = _address(source.root)
    return arguments | ({"SOURCE": address} if address else {})


def _address(root: Path) -> str | None:
    """Where the source is published; a local path or an address with a password in it is not told."""
    command = ["git", "-C", str(root), "config", "--get", "remote.origin.url"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    address = done.stdout.strip()
    return address if address.startswith("https://") and "@" not in address else None


def build_images(names: list[str], engine: str | None, build: Build, *, dry_run: bool = False) -> str:
    """Build images in order; returns what was built, or with `dry_run` the command lines.

    Raises:
        EngineError: no engine, no checkout, no requirements for that CUDA, or a build that failed.
    """
    wanted, source = chosen(names), checkout()
    file = source.root / "containers" / "requirements" / f"torch-{build.cuda}.txt"
    if "trainer" in wanted and not file.is_file():
        there = [path.stem.removeprefix("torch-") for path in sorted(file.parent.glob("torch-*.txt"))]
        raise EngineError(f"--cuda {build.cuda}: no {file}; there: {', '.join(there)}; see docs/containers.md")
    if dry_run:
        return "\n".join(shlex.join(build_argv(engine or "docker", name, build, source)) for name in wanted)
    tool = find_engine(engine)
    if wanted == ["all"]:
        _check_parts(tool, build, source)
    built = [_build_one(tool, name, build, source) for name in wanted]
    return "\n".join(built)


def _check_parts(engine: str, build: Build, source: Checkout) -> None:
    """The images that `all` is made from must be there, and of this revision."""
    for name in IMAGES[:2]:
        reference = reference_of(name, build.tag or source.version, build.repository)
        found = labels_of(present(engine, reference)).get(f"{LABEL}.revision")
        if found != source.revision:
            raise EngineError(
                f"{reference}: made from revision {found}, this checkout is {source.revision}; "
                f"`sra-bench images build {name}` makes it anew"
            )


def present(engine: str, reference: str) -> dict[str, Any]:
    """An image's description.

    Raises:
        EngineError: there is no such image, or the engine refused.
    """
    found = inspect(engine, reference)
    if found is None:
        name = reference.rpartition("/")[2].partition(":")[0]
        raise EngineError(f"{reference}: {engine} has no such image; `sra-bench images build {name}` makes it")
    return found


def _build_one(engine: str, name: str, build: Build, source: Checkout) -> str:
    command = build_argv(engine, name, build, source)
    print(shlex.join(command), flush=True)
    done = subprocess.run(command, check=False)
    reference = reference_of(name, build.tag or source.version, build.repository)
    if done.returncode != 0:
        raise EngineError(f"{reference}: {engine} build ended with exit code {done.returncode}; its output is above")
    return f"{reference}  {present(engine, reference)['Size'] / 1e9:.2f} GB"


def list_images(engine: str | None, *, as_json: bool = False) -> str:
    """The suite's images that an engine has: names, sizes, labels.

    Raises:
        EngineError: no engine.
    """
    tool = find_engine(engine)
    ids = list(dict.fromkeys(ask(tool, "images", "--quiet", "--no-trunc", "--filter", f"label={CUDA_LABEL}").split()))
    found = [_described(image) for image in (json.loads(ask(tool, "image", "inspect", *ids)) if ids else [])]
    found = sorted((image for image in found if image["names"]), key=lambda image: str(image["names"]))
    if as_json:
        return json.dumps({"schema": 1, "engine": tool, "images": found}, indent=2)
    if not found:
        return f"{tool} has none of the suite's images; `sra-bench images build` makes them"
    rows: list[tuple[str, ...]] = [("image", "GB", "version", "revision", "CUDA", "created")]
    rows += [row for image in found for row in _rows(image)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _described(image: dict[str, Any]) -> dict[str, Any]:
    labels = labels_of(image)
    return {
        "names": image.get("RepoTags") or [],
        "id": image["Id"],
        "bytes": image["Size"],
        "version": labels.get(f"{LABEL}.version"),
        "revision": labels.get(f"{LABEL}.revision"),
        "cuda": labels.get(CUDA_LABEL),
        "created": image.get("Created"),
    }


def _rows(image: dict[str, Any]) -> list[tuple[str, ...]]:
    size, revision = f"{image['bytes'] / 1e9:.2f}", image["revision"] or "?"
    dirty = "-dirty" if revision.endswith("-dirty") else ""
    rest = (image["version"] or "?", revision[:SHORT] + dirty, image["cuda"] or "-", str(image["created"])[:19])
    return [(name, size, *rest) for name in image["names"]]
