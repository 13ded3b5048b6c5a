"""The architecture: folders form floors, and no module imports from a floor above its own."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("sra", "evaluator", "benchmark")
FLOORS = (
    "sra/common",
    "sra/config",
    "sra/embedded",
    "sra/runtime",
    "sra/model",
    "sra/objectives",
    "sra/alignment",
    "sra/data",
    "sra/sampling",
    "sra/training",
    "sra/analysis",
    "sra/interop",
    "sra/parity",
    "sra/perf",
    "sra/accept",
    "sra",
    "evaluator/embedded",
    "evaluator/images",
    "evaluator/inception",
    "evaluator/metrics",
    "evaluator/features",
    "evaluator/tools",
    "evaluator/dev",
    "evaluator",
    "benchmark/machine",
    "benchmark/assets",
    "benchmark/manifest",
    "benchmark/published",
    "benchmark/plan",
    "benchmark/run",
    "benchmark/containers",
    "benchmark/report",
    "benchmark/clusters",
    "benchmark/clusters/slurm",
    "benchmark/clusters/kubernetes",
    "benchmark/commands",
    "benchmark",
    "benchmark/cli",
)
"""From the ground up."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def folder_of(module: str) -> str:
    return str(MODULES[module].parent.relative_to(ROOT))


def imports(module: str) -> Iterator[str]:
    """Modules of this project that a module imports, those inside functions too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = names & MODULES.keys()
            yield from submodules
            if names - submodules:
                yield node.module


def test_every_folder_has_a_floor() -> None:
    assert {folder_of(module) for module in MODULES} == set(FLOORS)


def test_nothing_imports_upward() -> None:
    level = {folder: number for number, folder in enumerate(FLOORS)}
    upward = {
        f"{module} -> {found}"
        for module in MODULES
        for found in imports(module)
        if level[folder_of(found)] > level[folder_of(module)]
    }
    assert upward == set()


def test_no_import_circle() -> None:
    graph = {module: set(imports(module)) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_folder_is_crowded() -> None:
    counts = {folder: len(list((ROOT / folder).glob("*.py"))) for folder in FLOORS}
    assert {folder: count for folder, count in counts.items() if count > 16} == {}
