"""The images' command line, on an engine that keeps its images in a file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.containers.build import (
    Build,
    Checkout,
    build_argv,
    build_images,
    checkout,
    in_building_order,
    list_images,
)
from benchmark.containers.checks import differences, pins_of
from benchmark.containers.engine import EngineError, find_engine
from sra.common.errors import UserError

FAKE = Path(__file__).with_name("fake_engine.py")


class Fake:
    """Installs the fake under an engine's name, and reads its file."""

    def __init__(self, folder: Path) -> None:
        self.state, self.bin = folder / "state.json", folder / "bin"
        self.bin.mkdir()
        self.write({"images": {}, "calls": []})

    def install(self, name: str) -> None:
        script = self.bin / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
        script.chmod(0o755)

    def read(self) -> dict[str, Any]:
        return json.loads(self.state.read_text())

    def write(self, state: dict[str, Any]) -> None:
        self.state.write_text(json.dumps(state))

    def change(self, **values: Any) -> None:
        self.write({**self.read(), **values})

    def built(self) -> list[str]:
        """Names of what it was told to build, in order."""
        calls = [call for call in self.read()["calls"] if call[0] == "build"]
        return [call[call.index("--tag") + 1] for call in calls]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    engine = Fake(tmp_path)
    monkeypatch.setenv("FAKE_ENGINE", str(engine.state))
    # git stays within reach: the checkout's revision is asked of it.
    git = next(Path(place) for place in os.environ["PATH"].split(":") if (Path(place) / "git").is_file())
    (engine.bin / "git").symlink_to(git / "git")
    monkeypatch.setenv("PATH", str(engine.bin))
    return engine


@pytest.fixture
def podman(fake: Fake) -> Fake:
    fake.install("podman")
    return fake


def reference(name: str) -> str:
    return f"localhost/sra-bench/{name}:{checkout().version}"


def test_no_engine_is_one_line(fake: Fake) -> None:
    with pytest.raises(EngineError, match=r"no container engine: docker or podman is not on PATH; install") as refused:
        find_engine()
    assert "\n" not in str(refused.value)
    fake.install("docker")
    with pytest.raises(EngineError, match="podman is not on PATH"):
        find_engine("podman")
    with pytest.raises(EngineError, match=r"--engine.*'pod'.*did you mean 'podman'\?"):
        find_engine("pod")


def test_the_engine_that_answers_is_used(fake: Fake) -> None:
    fake.install("podman")
    assert find_engine() == "podman"
    fake.install("docker")
    assert find_engine() == "docker"
    (fake.bin / "docker").write_text("#!/bin/sh\necho one >&2; echo 'no daemon' >&2; exit 1\n")
    assert find_engine() == "podman"
    with pytest.raises(EngineError, match=r"^docker .*no daemon$"):
        find_engine("docker")
    fake.change(down="no store")
    with pytest.raises(EngineError, match=r"^docker .*no daemon; podman .*no store$"):
        find_engine()


def test_all_is_built_last_from_the_other_two(podman: Fake) -> None:
    assert in_building_order(["all", "trainer"]) == ["trainer", "all"]
    told = build_images([], None, Build(base="base:1", uid=7))
    assert podman.built() == [reference(name) for name in ("trainer", "evaluator", "all")]
    assert told.count("2.00 GB") == 3
    trainer, _, last = [call for call in podman.read()["calls"] if call[0] == "build"]
    for part in ("BASE=base:1", "UID=7", "CUDA=cu130", f"REVISION={checkout().revision}"):
        assert part in trainer
    assert f"TRAINER={reference('trainer')}" in last
    assert f"EVALUATOR={reference('evaluator')}" in last


def test_all_alone_needs_the_others_of_this_revision(podman: Fake) -> None:
    with pytest.raises(EngineError, match=r"podman has no such image; `sra-bench images build trainer` makes it"):
        build_images(["all"], None, Build())
    build_images(["trainer", "evaluator"], None, Build())
    state = podman.read()
    state["images"][reference("evaluator")]["Config"]["Labels"]["org.opencontainers.image.revision"] = "0" * 40
    podman.write(state)
    with pytest.raises(EngineError, match=rf"made from revision {'0' * 40}, this checkout is .*images build evaluator"):
        build_images(["all"], None, Build())
    build_images(["evaluator"], None, Build())
    build_images(["all"], None, Build())
    assert podman.built()[-1] == reference("all")


def test_a_failed_build_ends_the_order(podman: Fake) -> None:
    podman.change(broken=True)
    with pytest.raises(EngineError, match=r"trainer:.*podman build ended with exit code 125; its output is above"):
        build_images([], None, Build())
    assert podman.built() == [reference("trainer")]


def test_bad_names_are_refused(podman: Fake) -> None:
    with pytest.raises(EngineError, match=r"image.*'trainr'.*did you mean 'trainer'\?"):
        build_images(["trainr"], None, Build())
    with pytest.raises(EngineError, match=r"--cuda: .*cu130.*'cu1'.*torch-cu1.txt.*see docs/containers.md"):
        build_images([], None, Build(cuda="cu1"))
    assert podman.built() == []


def test_images_need_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no containers/trainer.Containerfile; images need a checkout"):
        checkout(tmp_path)


@pytest.mark.parametrize(
    ("address", "told"), [("https://x.org/a", True), ("https://me:word@x.org/a", False), ("/home/me/a", False)]
)
def test_only_a_public_address_is_told(tmp_path: Path, address: str, told: bool) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", address], check=True)
    command = build_argv("docker", "trainer", Build(), Checkout(tmp_path, "1", "abc"))
    assert (f"SOURCE={address}" in command) == told
    assert told or address not in " ".join(command)


def test_list(podman: Fake) -> None:
    assert "has none of the suite's images" in list_images(None)
    build_images([], None, Build())
    header, *rows = list_images(None).splitlines()
    assert header.split() == ["image", "GB", "version", "revision", "CUDA", "created"]
    assert [row.split()[0] for row in rows] == sorted(reference(name) for name in ("trainer", "evaluator", "all"))
    assert all(checkout().revision[:12] in row for row in rows)
    images = json.loads(list_images(None, as_json=True))["images"]
    assert {image["cuda"] for image in images} == {"cu130", "none"}


def inside(part: str, **changes: Any) -> dict[str, Any]:
    source = checkout()
    packages = {**pins_of(source.root, part, "cu130"), "sra-bench": source.version}
    return {"uid": 1000, "revision": source.revision, "tools": ["gcc"], "packages": packages, **changes}


def verify(*names: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["images", "verify", *names])
    assert not isinstance(done.exception, UserError), done.exception
    return done.exit_code, done.stdout


def test_verify(podman: Fake) -> None:
    build_images([], None, Build())
    pythons = {part: f"/opt/{part}/bin/python" for part in ("trainer", "evaluator")}
    good = {pythons[part]: inside(part, tools=["gcc"] * (part == "trainer")) for part in pythons}
    podman.change(inside=good)
    code, text = verify()
    assert (code, text.count("FAILS")) == (0, 0)
    podman.change(doctor=3)
    code, text = verify("all")
    assert code == 1
    assert [line for line in text.splitlines() if "FAILS" in line] == ["  FAILS  doctor works: exit code 3"]
    wrong = inside("evaluator", uid=0, revision="x", tools=["make"])
    wrong["packages"] |= {"numpy": "1.0", "left-pad": "2"}
    podman.change(doctor=0, inside={pythons["evaluator"]: wrong})
    code, text = verify("evaluator")
    assert code == 1
    assert text.count("FAILS") == 4
    for part in ("runs as root", "found make", "left-pad 2 (locked: not), numpy 1.0 (locked: ", "SRA_BENCH_REVISION x"):
        assert part in text
    assert podman.read()["calls"][-1][:5] == ["run", "--rm", "--network", "none", "--read-only"]


def test_verify_names_a_missing_image(podman: Fake) -> None:
    done = CliRunner().invoke(app, ["images", "verify", "trainer"])
    assert isinstance(done.exception, EngineError)
    assert f"{reference('trainer')}: podman has no such image" in str(done.exception)


def test_differences() -> None:
    pins = {"a": "1", "b": "2"}
    assert differences({**pins, "sra-bench": "0"}, pins) == ""
    assert differences({"a": "1", "sra-bench": "0"}, pins) == "b absent (locked: 2)"
    assert differences({"a": "1"}, pins) == "sra-bench absent, b absent (locked: 2)"
