"""Compose, CI examples and the Apptainer definition: valid by their programs' schemas, and true to what they mirror."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "containers" / "compose.yaml"
APPTAINER = ROOT / "containers" / "apptainer.def"
GITHUB = ROOT / ".github" / "workflows" / "ci.yml"
GITLAB = ROOT / "containers" / "ci" / "gitlab-ci.example.yml"
ALWAYS = (
    "main job",
    "the same command again: everything is done",
    "tests",
    "every manifest's smoke form",
    "lint",
    "types",
)
"""Steps of .ci/run that both examples repeat on each push."""


@pytest.mark.parametrize(
    ("schema", "path"), [("compose-spec", COMPOSE), ("github-workflows", GITHUB), ("gitlab-ci", GITLAB)], ids=str
)
def test_the_programs_schema_takes_it(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def ci_commands() -> list[str]:
    """What `.ci/run` calls through uv in those steps."""
    script = (ROOT / ".ci" / "run").read_text()
    steps = dict(re.findall(r'step "([^"]+)"\n(.*?)(?=\nstep |\Z)', script, flags=re.DOTALL))
    return [words.strip() for name in ALWAYS for words in re.findall(r"uv run [^\n&]+", steps[name])]


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_examples_repeat_what_ci_does(path: Path) -> None:
    text = path.read_text()
    commands = ci_commands()
    assert len(commands) == 7
    for command in commands:
        assert re.search(rf"{re.escape(command)}$", text, flags=re.MULTILINE), command


def test_actions_are_pinned_and_get_no_more_rights_than_they_need() -> None:
    document = yaml.safe_load(GITHUB.read_text())
    uses = [step["uses"] for job in document["jobs"].values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in uses)
    assert document["permissions"] == {"contents": "read"}
    writing = {name for name, job in document["jobs"].items() if "write" in job.get("permissions", {}).values()}
    assert writing == {"images"}
    assert document["jobs"]["images"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    # An expression within a script would be text that a branch's name can write.
    assert not [s for job in document["jobs"].values() for s in job["steps"] if "${{" in s.get("run", "")]


def test_compose_shuts_its_services_in() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert {name: service["profiles"] for name, service in services.items()} == {"smoke": ["smoke"], "full": ["full"]}
    for service in services.values():
        assert (service["read_only"], service["network_mode"], service["cap_drop"]) == (True, "none", ["ALL"])
        assert service["stop_grace_period"] == "5m"
        writable = [v["target"] for v in service["volumes"] if not v.get("read_only")]
        assert writable == ["/sra-bench/runs"]
    devices = services["full"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert "deploy" not in services["smoke"]


def test_the_apptainer_definition_says_what_it_needs() -> None:
    """Read only: Apptainer is not among the packages that CI can install."""
    text = APPTAINER.read_text()
    header, *sections = re.split(r"^%", text, flags=re.MULTILINE)
    keys = dict(re.findall(r"^(\w+): (.+)$", header, flags=re.MULTILINE))
    assert keys == {"Bootstrap": "docker-archive", "From": "{{ ARCHIVE }}"}
    bodies = {name: body for name, _, body in (section.partition("\n") for section in sections)}
    assert set(bodies) == {"arguments", "environment", "runscript", "test", "help"}
    # Every build argument that is used has a default.
    assert set(re.findall(r"{{ (\w+) }}", text)) == set(
        re.findall(r"^ +(\w+)=", bodies["arguments"], flags=re.MULTILINE)
    )
    assert 'exec "$@"' in bodies["runscript"]
