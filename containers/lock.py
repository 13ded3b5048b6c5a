"""Writes the hash-locked requirements of the images: `python containers/lock.py [--torch NAME] [--python VERSION]`.

Versions are those of pyproject.toml; which package goes into which image is said here. For another CUDA generation,
put the index of that build of torch into UV_INDEX, and name the generation: see docs/containers.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "containers" / "requirements"
UV = "uv==0.13.9"
TENSORFLOW = {"tensorflow"}
EVALUATOR = {"numpy", "pillow", "pydantic", "pyyaml", "safetensors", "scipy", "tensorflow", "threadpoolctl"}
EVALUATOR |= {"jinja2", "protobuf", "psutil", "tqdm", "typer"}
GENERATION = re.compile(r"(torch|torchvision|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
"""What a generation of CUDA decides: files of its own, for the largest and least changing layer."""


def pyproject() -> dict[str, list[str]]:
    """Requirements by what they are for."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    extras = [project["optional-dependencies"][name] for name in ("train", "evaluate")]
    return {
        "all": sorted({*project["dependencies"], *(line for lines in extras for line in lines)}),
        "build": document["build-system"]["requires"],
        "constraints": document["tool"]["uv"]["constraint-dependencies"],
    }


def name_of(requirement: str) -> str:
    """The package of `package==version`."""
    return re.split(r"[=<>\[; ]", requirement, maxsplit=1)[0]


def resolve(requirements: list[str], constraints: list[str], python: str) -> dict[str, str]:
    """Every package that the requirements need, with its pin and hashes as a requirements file has them."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, bounds = Path(folder) / "wanted.in", Path(folder) / "bounds.txt"
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        bounds.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        command = ["uv", "pip", "compile", "--quiet", "--no-config", str(wanted), "--constraints", str(bounds)]
        command += ["--generate-hashes", "--no-annotate", "--no-header", "--python-version", python]
        # Local versions of torch stand in an index of their own, beside the one that has all else.
        command += ["--python-platform", "x86_64-manylinux_2_28", "--index-strategy", "unsafe-best-match"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
    blocks = re.split(r"\n(?=\S)", done.stdout.strip())
    return {name_of(block): block for block in blocks}


def write(name: str, blocks: list[str], python: str) -> None:
    """One requirements file."""
    head = f"# Written by containers/lock.py for Python {python} on x86_64 Linux; versions are pyproject.toml's.\n"
    (FOLDER / f"{name}.txt").write_text(head + "\n".join(blocks) + "\n", encoding="utf-8")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", metavar="NAME", help="write only torch-NAME.txt, such as torch-cu126.txt")
    parser.add_argument("--python", default="3.11", help="of the base image (default: %(default)s)")
    options = parser.parse_args()
    known, python = pyproject(), options.python
    trainer = [line for line in known["all"] if name_of(line) not in TENSORFLOW]
    locked = resolve(trainer, known["constraints"], python)
    chosen = [block for block in locked.values() if GENERATION.match(block)]
    write(f"torch-{options.torch or 'cu130'}", chosen, python)
    if options.torch:
        return
    write("trainer", [block for block in locked.values() if block not in chosen], python)
    evaluator = [line for line in known["all"] if name_of(line) in EVALUATOR]
    write("evaluator", list(resolve(evaluator, known["constraints"], python).values()), python)
    write("build", list(resolve([*known["build"], UV], known["constraints"], python).values()), python)


if __name__ == "__main__":
    main()
