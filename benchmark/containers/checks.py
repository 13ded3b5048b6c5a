"""`sra-bench images verify`: checks inside an image, run as it would be on a closed cluster."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.containers import inside
from benchmark.containers.build import CUDA_LABEL, LABEL, REPOSITORY, Checkout, checkout, chosen, present, reference_of
from benchmark.containers.engine import CLOSED, EngineError, find_engine, labels_of, last_line
from benchmark.machine.environment import REVISION

ENVIRONMENTS = {"trainer": ("trainer",), "evaluator": ("evaluator",), "all": ("trainer", "evaluator")}
COMPILER = {"gcc", "g++", "cc", "c++", "ld", "as"}
"""torch.compile needs it at run time, so the images with torch have it."""
ALLOWED: dict[str, set[str]] = {"trainer": COMPILER, "evaluator": set(), "all": COMPILER}
PIN = re.compile(r"^([a-z0-9-]+)==([\w.+!-]+)", re.MULTILINE)


class Check(NamedTuple):
    """One property of an image."""

    what: str
    trouble: str
    """Empty where it holds."""


def verify_images(
    names: list[str], engine: str | None, tag: str | None, repository: str = REPOSITORY
) -> tuple[str, bool]:
    """Check images; returns what was found, and whether all holds.

    Raises:
        EngineError: no engine, no checkout to compare with, or a missing image.
    """
    wanted, source, tool = chosen(names), checkout(), find_engine(engine)
    lines, sound = [], True
    for name in wanted:
        reference = reference_of(name, tag or source.version, repository)
        checks = _checks(tool, name, reference, source)
        sound = sound and not any(check.trouble for check in checks)
        lines += [f"{reference}:", *(f"  {'FAILS' if c.trouble else 'holds'}  {_said(c)}" for c in checks)]
    return "\n".join(lines), sound


def _said(check: Check) -> str:
    return f"{check.what}: {check.trouble}" if check.trouble else check.what


def _checks(engine: str, name: str, reference: str, source: Checkout) -> list[Check]:
    inspected = present(engine, reference)
    labels = labels_of(inspected)
    found = {part: _look(engine, reference, part) for part in ENVIRONMENTS[name]}
    first = found[ENVIRONMENTS[name][0]]
    tools = sorted(set(first["tools"]) - ALLOWED[name])
    pins = {part: pins_of(source.root, part, labels.get(CUDA_LABEL)) for part in found}
    return [
        Check("made from this checkout", _other("revision", labels.get(f"{LABEL}.revision"), source.revision)),
        Check("of this version", _other("version", labels.get(f"{LABEL}.version"), source.version)),
        Check("its runs name the revision", _other(REVISION, first["revision"], source.revision)),
        Check("runs as a user that is not root", "" if first["uid"] else "it runs as root"),
        Check("no build tools beyond those needed", f"found {', '.join(tools)}" if tools else ""),
        *(
            Check(f"packages of the {part} are the locked ones", differences(what["packages"], pins[part]))
            for part, what in found.items()
        ),
        Check("doctor works", _doctor(engine, reference)),
    ]


def _other(what: str, found: str | None, wanted: str) -> str:
    return "" if found == wanted else f"{what} {found}, this checkout is {wanted}"


def closed_run(engine: str, reference: str, *command: str) -> list[str]:
    """The command line that runs something in an image without network or any place to write but /tmp."""
    return [engine, "run", "--rm", "--network", "none", *CLOSED, reference, *command]


def _look(engine: str, reference: str, part: str) -> dict[str, Any]:
    """What the interpreter of one environment finds."""
    script = Path(inside.__file__).read_text(encoding="utf-8")
    command = closed_run(engine, reference, f"/opt/{part}/bin/python", "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"{reference}: cannot be looked into: {last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _doctor(engine: str, reference: str) -> str:
    command = closed_run(engine, reference, "sra-bench", "doctor")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"exit code {done.returncode}: {last_line(done.stderr)}" if done.returncode else ""


def pins_of(root: Path, part: str, cuda: str | None) -> dict[str, str]:
    """Versions that an environment is locked to, by package.

    Raises:
        EngineError: the checkout has no requirements for that generation of CUDA.
    """
    names = [f"torch-{cuda}", "trainer"] if part == "trainer" else [part]
    pins: dict[str, str] = {}
    for name in names:
        file = root / "containers" / "requirements" / f"{name}.txt"
        if not file.is_file():
            raise EngineError(f"{file}: not found; the image was built with requirements that this checkout lacks")
        pins |= dict(PIN.findall(file.read_text(encoding="utf-8")))
    return pins


def differences(found: dict[str, str], pins: dict[str, str]) -> str:
    """In which packages an environment differs from its lock, in words; the suite itself is not locked."""
    installed = {name: version for name, version in found.items() if name != "sra-bench"}
    names = sorted(installed.keys() | pins.keys())
    wrong = [n for n in names if installed.get(n) != pins.get(n)]
    said = ", ".join(f"{n} {installed.get(n, 'absent')} (locked: {pins.get(n, 'not')})" for n in wrong)
    return said if "sra-bench" in found else ", ".join(["sra-bench absent", *([said] if said else [])])
