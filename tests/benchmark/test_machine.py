"""Checks of GPU driver, container flags and provenance."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.commands.evaluate import score_samples
from benchmark.machine import gpus, provenance
from benchmark.machine.environment import TENSORFLOW_PYTHON
from sra.common.errors import UserError

ROOT = Path(__file__).parents[2]

OLD, NEW = "NVIDIA A100, 535.104.05, 81920 MiB", "NVIDIA H100, 580.65.06, 81559 MiB"


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("container", raising=False)
    (tmp_path / "mark").touch()
    monkeypatch.setattr(gpus, "CONTAINER_FILES", (tmp_path / "none", tmp_path / "mark"))
    monkeypatch.setattr(gpus, "installed_cuda", lambda: 13)


def shared_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(gpus.os, "statvfs", lambda _place: SimpleNamespace(f_frsize=1, f_blocks=size))


def test_no_gpu_visible_inside(inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = gpus.warnings([])
    assert "docker run --gpus all" in line
    monkeypatch.setattr(gpus, "CONTAINER_FILES", ())
    assert gpus.warnings([]) == []
    monkeypatch.setenv("container", "podman")
    assert gpus.warnings([]) == [line]


def test_a_driver_older_than_cuda(inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus.warnings([NEW]) == []
    (line,) = gpus.warnings([OLD])
    assert "535.104.05" in line
    assert "580" in line
    monkeypatch.setattr(gpus, "installed_cuda", lambda: 12)
    assert gpus.warnings([OLD]) == []


def test_too_little_shared_memory_for_several_gpus(inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shared_memory(monkeypatch, 64 * 10**6)
    assert gpus.warnings([NEW]) == []
    assert gpus.warnings([NEW, NEW]) == ["/dev/shm holds 64 MB: run with --shm-size 8g"]
    shared_memory(monkeypatch, 8 * 2**30)
    assert gpus.warnings([NEW, NEW]) == []


@pytest.mark.parametrize(
    ("driver", "devices", "chosen", "count"),
    [
        (0, 8, None, 8),  # no /proc/driver
        (8, 0, None, 8),
        (8, 2, None, 2),  # a container with two of the eight
        (0, 0, "0,1", 0),
        (0, 0, "GPU-1f3a", 0),
        (4, 4, "0,1", 2),
        (4, 4, "", 0),
        (4, 4, "-1", 0),
        (4, 4, "2,-1,3", 1),  # CUDA stops at the first that it does not know
        (4, 4, "0,7", 1),
        (4, 4, "GPU-1f3a, GPU-2b", 2),
        (1, 1, "MIG-1,MIG-2", 2),
        (4, 4, "0,0", 1),
    ],
)
def test_gpus_are_counted(
    driver: int, devices: int, chosen: str | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [f"gpus/0000:{n}" for n in range(driver)] + [f"nvidia{n}" for n in range(devices)] + ["nvidiactl"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "GPU_FILES", (f"{tmp_path}/gpus/*", f"{tmp_path}/nvidia[0-9]*"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus.visible_gpus() == count
    monkeypatch.setattr(gpus, "AMD_GPU", tmp_path / "none")
    named = [part for part in (chosen or "").split(",") if part not in ("", "-1")]
    line = gpus.absent_gpus()
    assert (line is not None) == (len(named) > count)
    assert line is None or f"this machine has {count or 'none'} of these" in line


def test_the_gpu_of_windows_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dxg").touch()
    monkeypatch.setattr(gpus, "GPU_FILES", tuple(pattern.replace("/dev", str(tmp_path)) for pattern in gpus.GPU_FILES))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus() == 1


def test_the_generation_is_that_of_the_installed_libraries() -> None:
    assert gpus.installed_cuda() == int(metadata.version("nvidia-cuda-runtime").split(".")[0])


def test_a_tool_without_its_framework_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as where it is not installed
    (tmp_path / "samples").mkdir()
    line = r"expected package tensorflow, which sra-bench\[evaluate\] installs, got none"
    with pytest.raises(UserError, match=line):
        score_samples(tmp_path / "samples", [tmp_path / "samples"], "embedded:digits", ["adm"])


def test_tensorflow_of_the_other_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = tmp_path / "lib" / "python3.11" / "site-packages" / "tensorflow-9.8.7.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 9.8.7\n")
    monkeypatch.setenv(TENSORFLOW_PYTHON, str(tmp_path / "bin" / "python"))
    assert provenance.versions()["tensorflow"] == "9.8.7"
    assert provenance.versions()["torch"] == metadata.version("torch")


def test_what_git_does_not_say_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git is absent, hangs, or refuses the checkout of another user: whether that is clean is not known."""
    (tmp_path / ".git").mkdir()
    assert provenance.source(tmp_path) == {"commit": None, "dirty": None}

    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert provenance.source(ROOT) == {"commit": None, "dirty": None}
    assert provenance.hardware()["gpus"] == []
