"""`sra-bench images verify`: check images from inside, started as on a closed cluster."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmark.containers import inventory
from benchmark.containers.build import REPOSITORY, Checkout, checkout, in_building_order, reference_of
from benchmark.containers.engine import HARDENED, EngineError, call, find_engine, find_image, reason
from benchmark.machine.environment import REVISION

ENVIRONMENTS = {"trainer": ("trainer",), "evaluator": ("evaluator",), "all": ("trainer", "evaluator")}
COMPILER = {"gcc", "g++", "cc", "c++", "ld", "as"}
"""torch.compile needs it at run time, so the images with torch have it."""
ALLOWED_TOOLS: dict[str, set[str]] = {"trainer": COMPILER, "evaluator": set(), "all": COMPILER}
PIN = re.compile(r"^([a-z0-9-]+)==([\w.+!-]+)", re.MULTILINE)


class Check(NamedTuple):
    """One property of an image."""

    what: str
    problem: str
    """Empty if it holds."""

    def __str__(self) -> str:
        return f"  FAILS  {self.what}: {self.problem}" if self.problem else f"  holds  {self.what}"


@dataclass(frozen=True)
class Contents:
    """What the script `inventory` prints of one environment of an image."""

    uid: int
    revision: str | None
    tools: list[str]
    packages: dict[str, str]


def verify_images(
    names: list[str], engine: str | None, tag: str | None, repository: str = REPOSITORY
) -> tuple[str, bool]:
    """Check images; returns the findings, and whether everything holds.

    Raises:
        EngineError: no engine, no checkout to compare with, or a missing image.
    """
    ordered, source, tool = in_building_order(names), checkout(), find_engine(engine)
    lines, sound = [], True
    for name in ordered:
        reference = reference_of(name, tag or source.version, repository)
        checks = _checks(tool, name, reference, source)
        sound = sound and not any(check.problem for check in checks)
        lines += [f"{reference}:", *map(str, checks)]
    return "\n".join(lines), sound


def _checks(engine: str, name: str, reference: str, source: Checkout) -> list[Check]:
    image = find_image(engine, reference)
    found = {part: _contents(engine, reference, part) for part in ENVIRONMENTS[name]}
    first = found[ENVIRONMENTS[name][0]]
    tools = sorted(set(first.tools) - ALLOWED_TOOLS[name])
    doctor = call(*closed_run(engine, reference, "sra-bench", "doctor"))
    return [
        Check("made from this checkout", _differs("revision", image.revision, source.revision)),
        Check("of this version", _differs("version", image.version, source.version)),
        Check("its runs name the revision", _differs(REVISION, first.revision, source.revision)),
        Check("runs as a user that is not root", "" if first.uid else "it runs as root"),
        Check("no build tools beyond those needed", f"found {', '.join(tools)}" if tools else ""),
        *(
            Check(f"packages of the {part} are the locked ones", differences(what.packages, pins))
            for part, what in found.items()
            for pins in [pins_of(source.root, part, image.cuda)]
        ),
        Check("doctor works", reason(doctor) if doctor.returncode else ""),
    ]


def _differs(what: str, found: str | None, wanted: str) -> str:
    return "" if found == wanted else f"{what} {found}, this checkout is {wanted}"


def closed_run(engine: str, reference: str, *command: str) -> list[str]:
    """Command line that runs something in an image without network or any place to write but /tmp."""
    return [engine, "run", "--rm", "--network", "none", *HARDENED, "--tmpfs", "/tmp", reference, *command]  # noqa: S108


def _contents(engine: str, reference: str, part: str) -> Contents:
    """Have the interpreter of one environment list what the image holds."""
    script = Path(inventory.__file__).read_text(encoding="utf-8")
    done = call(*closed_run(engine, reference, f"/opt/{part}/bin/python", "-c", script))
    if done.returncode != 0:
        raise EngineError(f"{reference}: its Python does not start: {reason(done)}")
    return Contents(**json.loads(done.stdout))


def pins_of(root: Path, part: str, cuda: str | None) -> dict[str, str]:
    """Versions that an environment is locked to, by package.

    Raises:
        EngineError: the checkout has no requirements for that CUDA.
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
    """Packages in which an environment differs from its lock; the suite itself is not locked."""
    installed = {name: version for name, version in found.items() if name != "sra-bench"}
    names = sorted(n for n in installed.keys() | pins.keys() if installed.get(n) != pins.get(n))
    said = [f"{n} {installed.get(n, 'absent')} (locked: {pins.get(n, 'not')})" for n in names]
    return ", ".join([*([] if "sra-bench" in found else ["sra-bench absent"]), *said])
