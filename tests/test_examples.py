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
RELEASE = ROOT / ".github" / "workflows" / "release.yml"
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
    ("schema", "path"),
    [("compose-spec", COMPOSE), ("github-workflows", GITHUB), ("github-workflows", RELEASE), ("gitlab-ci", GITLAB)],
    ids=str,
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


@pytest.mark.parametrize(
    ("path", "rights"),
    [(GITHUB, {}), (RELEASE, {"publish": "id-token", "images": "packages", "notes": "contents"})],
    ids=["ci", "release"],
)
def test_actions_are_pinned_and_get_no_more_rights_than_they_need(path: Path, rights: dict[str, str]) -> None:
    document = yaml.safe_load(path.read_text())
    steps = [step for job in document["jobs"].values() for step in job.get("steps", [])]
    uses = [step["uses"] for step in steps if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in uses)
    assert document["permissions"] == {"contents": "read"}
    given = {name: job["permissions"] for name, job in document["jobs"].items() if "permissions" in job}
    assert {name: [right for right, kind in own.items() if kind == "write"] for name, own in given.items()} == {
        name: [right] for name, right in rights.items()
    }
    # An expression within a script would be text that a branch's name can write.
    assert not [step for step in steps if "${{" in step.get("run", "")]


def test_a_release_comes_after_the_checks_with_its_part_of_the_changelog(tmp_path: Path) -> None:
    document = yaml.load(RELEASE.read_text(), yaml.BaseLoader)
    jobs = document["jobs"]
    assert document["on"] == {"push": {"tags": ["v*"]}}
    assert all(jobs[name]["needs"] == ["checks", "package"] for name in ("publish", "images"))
    (tmp_path / "gh").write_text("#!/bin/sh\n")
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "CHANGELOG.md").write_text("# C\n\n## [Unreleased]\n\na\n\n## [0.2.0] - 2027\n\nb\n\n## [0.1.0]\n\nc\n")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GITHUB_REF_NAME": "v0.2.0"}
    script = jobs["notes"]["steps"][-1]["run"]
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "notes.md").read_text() == "\nb\n\n"


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
