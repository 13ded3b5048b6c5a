"""A container engine for tests: keeps what it was asked in $FAKE_ENGINE/calls.jsonl and runs jobs on this machine.

$FAKE_ENGINE/images.json maps images to labels; a file NAME.running is a container that still runs; probe.json is what a
look inside finds.
"""

import json
import os
import sys
from pathlib import Path

PLACE = Path(os.environ["FAKE_ENGINE"])
NO_ARGUMENT = {"--rm", "--init", "--read-only", "--userns=keep-id", "--cleanenv", "--contain", "--no-home", "--net"}
NO_ARGUMENT |= {"--nv"}


def fail(line: str, code: int = 1) -> None:
    print(line, file=sys.stderr)
    sys.exit(code)


def run(arguments: list[str]) -> None:
    environment, position = {}, 0
    while arguments[position].startswith("--"):
        option, value = arguments[position], arguments[position + 1]
        if option == "--env":
            environment[value.partition("=")[0]] = value.partition("=")[2]
        if option == "--name" and (PLACE / f"{value}.running").exists():
            fail(f"Error: the container name {value} is already in use", 125)
        if option == "--workdir":
            os.chdir(value)
        position += 1 if option in NO_ARGUMENT else 2
    rest = arguments[position + 2 :]
    if rest[0] == "-c":
        print((PLACE / "probe.json").read_text())
        sys.exit(0)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    os.execve(sys.executable, [sys.executable, *rest], {**kept, **environment, "OMP_NUM_THREADS": "1"})


def main(arguments: list[str]) -> None:
    with (PLACE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    if (PLACE / "down").exists():
        fail("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
    if arguments == ["version"]:
        return
    if arguments[:2] == ["image", "inspect"]:
        images = json.loads((PLACE / "images.json").read_text())
        if arguments[2] not in images:
            fail(f"Error: No such image: {arguments[2]}")
        print(json.dumps([{"Id": "1", "Size": 1, "Config": {"Labels": images[arguments[2]]}}]))
    elif arguments[:2] == ["container", "inspect"]:
        sys.exit(0 if (PLACE / f"{arguments[2]}.running").exists() else 1)
    elif arguments[0] in ("stop", "rm"):
        (PLACE / f"{arguments[-1]}.running").unlink(missing_ok=True)
    else:
        run(arguments[1:])


main(sys.argv[1:])
