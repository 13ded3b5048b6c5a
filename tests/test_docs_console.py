"""Commands in console blocks of the pages run as written, and print what the page shows (`...`: anything)."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.M | re.S)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", flags=re.M)
FILE = re.compile(r"`([\w/]+\.\w+)`:\n\n```(\w+)\n(.*?)^```$", flags=re.M | re.S)
"""The name of a file and what is in it, or changes in it."""
CHANGE = re.compile(r"((?:^-.*\n)+)((?:^\+.*\n)+)", flags=re.M)
PAGES = [page for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]) if BLOCK.search(page.read_text())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader could be: the manifests, a finished run, somebody's bundle, images of several forms."""
    place = tmp_path_factory.mktemp("reader")
    (place / "manifests").symlink_to(ROOT / "manifests")
    (place / "containers").symlink_to(ROOT / "containers")
    with zipfile.ZipFile(FIXTURES / "run-schema1.zip") as archive:
        archive.extractall(place / "runs" / "smoke")
    shutil.copy(FIXTURES / "bundle-features-schema1.zip", place / "smoke.zip")
    # Every pixel of a digit becomes 4 x 4.
    digits = np.kron(load_digits().images * 255 / 16, np.ones((4, 4)))[..., None].repeat(3, axis=-1).astype(np.uint8)
    np.savez(place / "half.npz", arr_0=digits[::2])
    np.savez(place / "other-half.npz", arr_0=digits[1::2])
    for number in range(8):
        (place / "photos" / ("cat", "dog")[number % 2]).mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (300 + number, 260), (number * 30, 90, 200))
        picture.save(place / "photos" / ("cat", "dog")[number % 2] / f"{number}.jpg")
    return place


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with the files and changes of docs/adding.md, and what its commands read."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("benchmark", "evaluator", "sra", "manifests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, kind, text in FILE.findall((ROOT / "docs" / "adding.md").read_text()):
        if kind != "diff":
            (place / name).write_text(text)
            continue
        for old, new in CHANGE.findall(text):
            before, after = ("\n" + re.sub(r"^[-+]", "", lines, flags=re.M) for lines in (old, new))
            source = (place / name).read_text()
            assert source.count(before) == 1, (name, before)
            (place / name).write_text(source.replace(before, after))
    torch.manual_seed(0)
    weights = place / ".cache" / "sra-bench" / "assets" / "resnet18-1k" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    save_file(timm.create_model("resnet18").state_dict(), weights)
    for name in ("samples", "reference"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        np.savez(place / f"{name}.npz", arr_0=pixels)
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_print_what_the_page_shows(page: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("checkout" if page.name == "adding.md" else "folder")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder), "COLUMNS": "100", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(folder)} if page.name == "adding.md" else {}
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for command, shown in (pair for block in BLOCK.findall(page.read_text()) for pair in COMMAND.findall(block)):
        # A volume that is mounted as /runs.
        words = shlex.split(command.replace("\\\n", " ").replace(" /runs", f" {folder}/runs"))
        if words[0] == "cat":
            # The page shows a file that the reader writes.
            (folder / words[1]).write_text(shown.replace(" /runs", f" {folder}/runs"))
            continue
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        got = done.stdout + done.stderr
        assert checker.check_output(shown, got, flags), f"$ {command}\n--- page\n{shown}--- now\n{got}"
