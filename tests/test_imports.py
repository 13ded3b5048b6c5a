"""The house's import directions, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmark", "sra", "evaluator")
# benchmark may use these torch-free modules; all else goes by argv and files.
SHARED = {
    "sra.config",
    "sra.common.archives",
    "sra.common.checkpoints",
    "sra.common.errors",
    "sra.common.validation",
    "sra.common.files",
    "sra.common.listing",
    "sra.common.processes",
    "sra.common.program",
    "sra.common.startup",
    "sra.common.tables",
    "sra.data.labels",
    "sra.model.flops",
    "sra.model.state",
    "evaluator.features",
    "evaluator.tools",
    "evaluator.tools.score_record",
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ["sra", "evaluator"])
def test_sra_and_evaluator_import_no_other_package(package: str) -> None:
    others = tuple(f"{name}." for name in PACKAGES if name != package)
    for path in modules(package):
        crossing = [n for n in imports(path) if f"{n}.".startswith(others)]
        assert all(n.startswith("sra.common.") for n in crossing), path


def test_benchmark_imports_only_the_torch_free_modules() -> None:
    for path in modules("benchmark"):
        crossing = {n for n in imports(path) if n.split(".")[0] in ("sra", "evaluator")}
        assert crossing <= SHARED, path
        assert not {n for n in imports(path) if n.split(".")[0] in ("torch", "tensorflow")}, path


def test_tensorflow_lives_in_few_modules() -> None:
    users = {p.name for p in modules("evaluator") if any(n.split(".")[0] == "tensorflow" for n in imports(p))}
    users |= {p.name for p in modules("sra") if any(n.split(".")[0] == "tensorflow" for n in imports(p))}
    assert users <= {"adm.py", "freeze_classifier.py"}


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from benchmark.commands.plan import show_plan; "
        "from benchmark.plan.request import RunRequest; "
        "show_plan(RunRequest(manifest=Path('manifests/smoke.yaml')), as_json=True); "
        "print([m for m in ('torch', 'tensorflow', 'diffusers', 'matplotlib', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
