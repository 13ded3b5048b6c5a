"""What an installation has: the extras hold what their modules import, and what is absent is asked for in one line."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.machine import extras
from benchmark.machine.extras import NEEDED, require
from evaluator.tools import TOOL_MODULES
from sra.common.errors import UserError

ROOT = Path(__file__).parents[1]

# Normalised, as requirements have them.
PROVIDERS = {
    name: {re.sub(r"[-_.]+", "-", found).lower() for found in providers}
    for name, providers in packages_distributions().items()
}
"""Installed distributions by the name that is imported."""


def distributions(*extras: str) -> set[str]:
    """Direct requirements of the installed project with these extras."""
    found = set()
    for line in requires("sra-bench") or []:
        extra = re.search(r"extra == ['\"](\w+)", line)
        if extra is None or extra[1] in extras:
            found.add(re.split(r"[=<>\[; ]", line, maxsplit=1)[0])
    return found


def test_the_extras_hold_no_more_than_their_users_need() -> None:
    frameworks = {"torch", "tensorflow", "diffusers", "accelerate", "torch-fidelity", "clean-fid"}
    assert distributions() & frameworks == set()
    assert distributions("train") & frameworks == {"torch", "diffusers", "accelerate"}
    assert distributions("evaluate") & frameworks == {"torch", "tensorflow", "torch-fidelity", "clean-fid"}
    assert distributions("all") == distributions("train", "evaluate")


@pytest.mark.parametrize(
    ("folder", "needed"),
    [("benchmark", ("notebook",)), ("sra/common", ()), ("sra", ("train",)), ("evaluator", ("evaluate", "parquet"))],
)
def test_every_import_is_installed_with_its_extra(folder: str, needed: tuple[str, ...]) -> None:
    installed = distributions(*needed)
    for path in (ROOT / folder).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        tops = {name.split(".")[0] for name in names} - {"benchmark", "sra", "evaluator", *sys.stdlib_module_names}
        # pydantic's core comes with it, in the version that it names.
        assert [top for top in tops - {"pydantic_core"} if not installed & PROVIDERS.get(top, set())] == [], path


@pytest.mark.parametrize(
    ("absent", "modules"),
    [
        ("tensorflow google.protobuf torchvision cleanfid torch_fidelity", "sra.training.train sra.sampling.sample"),
        ("diffusers accelerate sklearn", "evaluator evaluator.tools.adm_torch evaluator.tools.clean_fid"),
    ],
    ids=["train", "evaluate"],
)
def test_modules_do_without_the_other_extra(absent: str, modules: str) -> None:
    code = f"import sys; sys.modules |= dict.fromkeys({absent.split()}); import {', '.join(modules.split())}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("tensorflow", "evaluate")])
def test_a_run_without_a_package_is_refused_before_it_writes(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(extras, "in_container", lambda: False)
    monkeypatch.setattr(sys, "argv", ["sra-bench", "run", "..."])
    with pytest.raises(SystemExit) as ended:
        main(["run", str(ROOT / "manifests" / "smoke.yaml"), "--out", str(tmp_path / "run")])
    line = f"error: sra-bench run: expected package {package}, which sra-bench[{extra}] installs, got none\n"
    assert (ended.value.code, capsys.readouterr().err) == (2, line)
    assert not list(tmp_path.iterdir())


def test_jobs_ask_for_importable_packages_of_their_extra() -> None:
    assert set(TOOL_MODULES.values()) < set(NEEDED)
    for module, (extra, _, packages) in NEEDED.items():
        assert all(PROVIDERS[name] & distributions(extra) - distributions() for name in packages), module
        require(module)
    require("evaluator.features.feature_files")


def test_a_job_of_one_extra_is_not_kept_back_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    require("evaluator.tools.adm_torch")
    require("sra.perf")
    with pytest.raises(UserError, match=r"tensorflow, which sra-bench\[evaluate\]"):
        require("evaluator.tools.adm")
