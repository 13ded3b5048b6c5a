"""A container engine that keeps its images in a file and runs nothing: stands on PATH as docker or podman."""

import json
import os
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_ENGINE"])


def main(arguments: list[str]) -> int:
    state = json.loads(STATE.read_text())
    state["calls"].append(arguments)
    code = answer(state, arguments)
    STATE.write_text(json.dumps(state))
    return code


def answer(state, arguments: list[str]) -> int:
    images = state["images"]
    match arguments:
        case ["version"]:
            return refuse(state["down"]) if state.get("down") else 0
        case ["build", *options]:
            return build(state, options)
        case ["image", "inspect", *names]:
            missing = [name for name in names if name not in images]
            if missing:
                return refuse(f"Error: No such image: {missing[0]}")
            print(json.dumps([images[name] for name in names]))
        case ["images", *_]:
            print("\n".join(images))
        case ["run", *options] if "-c" in options:
            python = options[options.index("-c") - 1]
            print(json.dumps(state["inside"][python]))
        case ["run", *_]:
            return state.get("doctor", 0)
    return 0


def refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


def build(state, options: list[str]) -> int:
    if state.get("broken"):
        return 125
    given = dict(options[i + 1].split("=", 1) for i, option in enumerate(options) if option == "--build-arg")
    name = options[options.index("--tag") + 1]
    parent = state["images"].get(given.get("TRAINER"), {"Config": {"Labels": {}}})
    labels = dict(parent["Config"]["Labels"])
    for label, key in (("version", "VERSION"), ("revision", "REVISION")):
        labels |= {f"org.opencontainers.image.{label}": given[key]} if key in given else {}
    labels |= {} if "TRAINER" in given else {"sra-bench.cuda": given.get("CUDA", "none")}
    state["images"][name] = {"Id": name, "RepoTags": [name], "Size": 2 * 10**9, "Config": {"Labels": labels}}
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
