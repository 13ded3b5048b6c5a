"""Documents name files, functions and commands that exist."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.published.registry import load_registry

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
CODE = re.compile(r"`((?:benchmark|sra|evaluator|containers|manifests|tests|docs|\.ci|\.github)/[^\s`<>]*)`")
PYTHON_NAME = re.compile(r"`([\w./]+\.py)::([\w.]+)`")


def definitions(tree: ast.AST, prefix: str = "") -> set[str]:
    """Functions, classes, methods and assigned names of a module."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found |= {prefix + node.name, *definitions(node, f"{prefix}{node.name}.")}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(((?!https?:|#)[^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page):
    named = {name.partition("::")[0] for name in CODE.findall(page.read_text())}
    # Files that the reader, or a command on the page, is about to write.
    written = {"sra/alignment/same_time.py", "containers/requirements/torch-cu126.txt"}
    written |= {"evaluator/tools/resnet18.py", "manifests/example.yaml"}
    named = {name for name in named - written if "NAME" not in name}
    assert [name for name in sorted(named) if not list(ROOT.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_functions_exist(page):
    pairs = PYTHON_NAME.findall(page.read_text())
    missing = [
        f"{file}::{name}" for file, name in pairs if name not in definitions(ast.parse((ROOT / file).read_text()))
    ]
    assert missing == []


def test_modules_that_are_run_exist():
    text = "\n".join(page.read_text() for page in PAGES)
    modules = set(re.findall(r"-m ((?:sra|evaluator|benchmark)(?:\.\w+)+)", text))
    paths = [ROOT / module.replace(".", "/") for module in modules]
    assert [path for path in paths if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file())] == []


def test_the_tree_shows_every_folder():
    tree = (ROOT / "ARCHITECTURE.md").read_text().partition("## The tree")[2].partition("\n## ")[0]
    folders = {path.parent for package in ("benchmark", "sra", "evaluator") for path in ROOT.glob(f"{package}/*/*.py")}
    assert [folder.name for folder in folders if f"`{folder.relative_to(ROOT)}/`" not in tree] == []


def test_architecture_names_every_folder():
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Floors")[2].partition("\n## ")[0]
    named = {word.rpartition("/")[2] for word in re.findall(r"`([\w/]+)`", text)}
    folders = {
        path.parent.name for package in ("benchmark", "sra", "evaluator") for path in ROOT.glob(f"{package}/*/**/*.py")
    }
    assert folders - named == set()


@pytest.mark.parametrize("package", ["benchmark", "sra", "evaluator"])
def test_package_docstrings_name_every_module(package):
    missing = []
    for init in ROOT.glob(f"{package}/**/__init__.py"):
        modules = {path.stem for path in init.parent.glob("*.py")} - {"__init__", "__main__"}
        modules |= {path.parent.name for path in init.parent.glob("*/__init__.py")}
        named = set(re.findall(r"`(\w+)`", ast.get_docstring(ast.parse(init.read_text())) or ""))
        missing += [f"{init.parent.relative_to(ROOT)}/{name}" for name in sorted(modules - named)]
    assert missing == []


def test_pre_commit_runs_what_ci_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {hook["entry"] for hook in hooks if hook["entry"].startswith("uv run")}
    script = (ROOT / ".ci" / "run").read_text()
    lint_and_types = re.findall(r"^uv run (?:ruff|mypy).*$", script, flags=re.M)
    assert len(lint_and_types) == 3
    assert set(lint_and_types) <= entries


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_issue_forms_are_valid(form):
    schema = "github-issue-config" if form.name == "config.yml" else "github-issue-forms"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(form)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_citation_is_valid_and_names_every_paper():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    done = subprocess.run([*command, "CITATION.cff"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    named = {(work["title"], work["url"]) for work in yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]}
    assert named == {(paper.title, paper.url) for paper in load_registry().papers.values() if paper.url}


def test_one_version_everywhere():
    version = importlib.metadata.version("sra-bench")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"[{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_packages_are_typed():
    assert all((ROOT / package / "py.typed").is_file() for package in ("benchmark", "sra", "evaluator"))
