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
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.M | re.S)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", flags=re.M)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_print_what_the_page_shows(page: Path, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder), "COLUMNS": "100", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for command, shown in (pair for block in BLOCK.findall(page.read_text()) for pair in COMMAND.findall(block)):
        words = shlex.split(command.replace("\\\n", " "))
        if words[0] == "cat":
            # The page shows a file that the reader writes.
            (folder / words[1]).write_text(shown)
            continue
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        got = done.stdout + done.stderr
        assert checker.check_output(shown, got, flags), f"$ {command}\n--- page\n{shown}--- now\n{got}"
