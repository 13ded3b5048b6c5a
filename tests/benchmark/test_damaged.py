"""Files that somebody damaged or made up: every command that reads a run answers, or refuses in one line by name."""

import copy
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.commands import clean, status
from benchmark.plan.run_directory import write_json
from benchmark.plan.saved_plan import record_session
from benchmark.report import figures
from benchmark.report.collect import load_report
from benchmark.report.render import show_report, write_report
from benchmark.report.verify import verify_bundle
from benchmark.run.heartbeat import RunnerHeartbeat
from sra.common import archives
from sra.common.errors import UserError
from sra.common.files import parse_json
from sra.common.validation import parse_yaml

ROW = "sit-xl2-sra-256-400ep-cfg"
VALUES = (None, "x", -1, True, [], {}, ["x"], {"a": 1}, 10**400, float("nan"), float("inf"), "../../../etc/passwd")
WHOLE = [
    b"",
    bytes(range(256)),
    b'{"a": "\xe9"}',
    b"[" * 100_000,
    b'{"a": ' * 200 + b"1" + b"}" * 200,
    b'{"schema": 1e999}',
    *(json.dumps(value).encode() for value in VALUES[:6]),
]
CHANGES = 6
"""Changes of single keys that are tried in each file."""


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key, and the first item of every list."""
    items = list(document.items()) if isinstance(document, dict) else list(enumerate(document[:1]))
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def damaged(content: bytes, seed: int) -> Iterator[bytes]:
    """A file without its end, other content, and with single keys missing or changed."""
    yield from (content[: len(content) // 2], *WHOLE)
    document, chance = json.loads(content), random.Random(seed)
    everywhere = list(places(document))
    for path in chance.sample(everywhere, min(CHANGES, len(everywhere))):
        changed = copy.deepcopy(document)
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        value = chance.choice([*VALUES, "missing"])
        holder[path[-1]] = value
        if value == "missing":
            del holder[path[-1]]
        yield json.dumps(changed).encode()


def answers(command: Callable[[], Any], file: Path) -> None:
    """A command answers, or refuses in one short line."""
    line = ""
    try:
        command()
    except UserError as error:
        line = str(error)
    assert "\n" not in line
    assert len(line) < 600 + len(str(file))


@pytest.fixture
def run(finished: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with every file that commands read."""
    for name in ("losses", "curves", "probe"):
        monkeypatch.setattr(figures, name, lambda *_a, **_k: None)
    root, plan = finished({"sra": ROW})
    record_session(plan, load_directory(root), {}, plan.stages[0])
    write_report(load_report(root), root / "report")
    RunnerHeartbeat(root / "run.json", plan.stages).write("running")
    job = {"schema": 1, "state": "running", "step": 1, "total": 2, "unit": "steps", "rate": 1.0, "eta_seconds": 1.0}
    stage = plan.stages[-1].directory
    write_json(stage / "heartbeat.json", {**job, "time": 1.0, "pid": 1, "host": "h", "message": None})
    write_json(stage / "failed.json", {"key": plan.stages[-1].key, "message": "no disk", "exit_code": 2})
    point = {"t": 0.5, "block": 1, "accuracy": 0.5}
    write_json(root / "probe" / "sra" / "probe.json", {"rows": [point]})
    return root


def load_directory(root: Path) -> Any:
    from benchmark.plan.run_directory import RunDirectory

    return RunDirectory(root)


def test_every_json_file_of_a_run(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run / "report", alone / "report")
    files = [*sorted(run.rglob("*.json")), alone / "report" / "report.json"]
    assert len({file.name for file in files}) >= 11
    for number, file in enumerate(files):
        content = file.read_bytes()
        for other in damaged(content, number):
            file.write_bytes(other)
            if file.is_relative_to(alone):
                answers(lambda: show_report(alone, "html"), file)
                continue
            answers(lambda: load_report(run), file)
            answers(lambda: status.show(run, as_json=True), file)
            answers(lambda: clean.clean(run, delete=False), file)
        file.write_bytes(content)
    assert show_report(alone, "html")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("plan.json", {"name": 7}, r"plan\.json: name: "),
        ("plan.json", {"name": "../a"}, r"plan\.json: name: "),
        ("provenance.json", {"sessions": 3}, r"provenance\.json: sessions: "),
        ("stages/score*/scores.json", {"metrics": {"fid": "low"}}, r"scores\.json: metrics\.fid: "),
        ("stages/sample*/seconds.json", {"seconds": None}, r"seconds\.json: seconds: "),
        ("report/report.json", {"rows": 1}, r"report\.json: rows: "),
    ],
)
def test_the_file_and_the_key_are_named(run: Path, name: str, change: dict[str, Any], message: str) -> None:
    (file,) = run.glob(name)
    write_json(file, json.loads(file.read_bytes()) | change)
    if name.startswith("report"):
        (run / "plan.json").unlink()
    with pytest.raises(UserError, match=message):
        load_report(run)


def test_stages_stay_inside_the_run(run: Path) -> None:
    document = json.loads((run / "plan.json").read_bytes())
    document["stages"][0]["directory"] = "../../outside"
    write_json(run / "plan.json", document)
    with pytest.raises(UserError, match=r"plan\.json: stages\.0\.directory: "):
        load_report(run)


@pytest.mark.parametrize("picture", ["../../../etc/passwd", "/etc/passwd", "../secret.png", "notes.txt", "absent.png"])
def test_pictures_of_a_report_lie_beside_it(run: Path, tmp_path: Path, picture: str) -> None:
    shutil.copytree(run / "report", tmp_path / "alone" / "report")
    (tmp_path / "alone" / "secret.png").write_bytes(b"secret")
    file = tmp_path / "alone" / "report" / "report.json"
    document = json.loads(file.read_bytes())
    document["rows"][0]["grid"] = picture
    write_json(file, document)
    with pytest.raises(UserError, match=r"picture"):
        show_report(tmp_path / "alone", "html")


def test_a_score_record_shows_no_picture_of_elsewhere(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (file,) = run.glob("stages/score*/scores.json")
    place = str(tmp_path / "secret.png")
    facts = {"equal_to_a_reference": 0, "classes_without_samples": 0, "largest_class_share": 0.1}
    views = {"nearest": place, "classes": place, **facts, "worst": [], "best": []}
    write_json(file, json.loads(file.read_bytes()) | {"views": views})
    assert load_report(run).rows[0].nearest is None


def test_links_and_markup_of_a_report_run_nothing(run: Path, tmp_path: Path) -> None:
    file = run / "report" / "report.json"
    document = json.loads(file.read_bytes())
    shutil.rmtree(run / "stages")
    (run / "plan.json").unlink()
    document["name"] = document["notes"][0:0] = "<script>alert(1)</script>"
    document["notes"] = ["<img src=x onerror=alert(1)>"]
    write_json(file, document)
    document["notes"].append("[here](javascript:alert(1))")
    write_json(file, document)
    for format in ("html", "md"):
        text = show_report(run, format)
        assert "<script>" not in text
        assert "<img src=x" not in text
    assert "[here](" not in text
    paper = next(iter(document["papers"].values()))
    for link in ("javascript:alert(1)", "data:text/html,x", "//evil"):
        paper["url"] = link
        write_json(file, document)
        with pytest.raises(UserError, match=r"report\.json: papers\.\S+\.url: "):
            show_report(run, "html")


def bundle(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


CONTENTS = {"schema": 1, "name": "a", "created": "", "suite": "", "registry_sha256": "", "left_out": [], "files": {}}


def test_bundles_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 16)
    contents = json.dumps(CONTENTS).encode()
    for number, other in enumerate(damaged(contents, 5)):
        place = bundle(tmp_path / f"{number}.zip", {"bundle.json": other})
        answers(lambda place=place: verify_bundle(place), place)
    with pytest.raises(UserError, match=r"bundle\.json: files: "):
        verify_bundle(bundle(tmp_path / "a.zip", {"bundle.json": json.dumps(CONTENTS | {"files": [1]}).encode()}))
    with pytest.raises(UserError, match="one without bundle"):
        verify_bundle(bundle(tmp_path / "b.zip", {"other": b""}))
    with pytest.raises(UserError, match="at most 200 times"):
        verify_bundle(bundle(tmp_path / "c.zip", {"bundle.json": contents, "x": bytes(1 << 20)}))
    for name in ("../out", "/tmp/out", "run/" + "n" * 300):
        listed = json.dumps(CONTENTS | {"files": {name: ""}}).encode()
        place = bundle(tmp_path / "d.zip", {"bundle.json": listed, name: b""})
        answers(lambda place=place: verify_bundle(place), place)
    assert not (tmp_path.parent / "out").exists()


@pytest.mark.parametrize(
    "text", ["[" * 90 + "]" * 90, "{" * 5000, '{"a": 1e400}', '{"a": -Infinity}', "9" * 30, "\xe9"]
)
def test_json_of_strangers(text: str) -> None:
    with pytest.raises(UserError, match=r"a\.json: expected JSON"):
        parse_json(text.encode("latin-1"), "a.json")


def test_yaml_of_strangers() -> None:
    import yaml

    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    merged = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
    for text, message in (
        (bomb, "more than 100,000 values"),
        (merged, "more than 100,000 values"),
        ("[" * 5000, "more than 50 levels"),
        ("\n".join(" " * i + "a:" for i in range(90)), "more than 50 levels"),
        ("a: &a [*a]", "an alias that holds itself"),
        ("a: 2001-99-99", "month must be in"),
        (f"a: {'9' * 5000}", "digits"),
    ):
        with pytest.raises(yaml.YAMLError, match=message):
            parse_yaml(text)
    assert parse_yaml("a: &x {b: 1}\nc: {<<: *x, d: [*x, *x]}")["c"] == {"b": 1, "d": [{"b": 1}, {"b": 1}]}


def test_a_report_says_why_a_metric_is_absent(run: Path) -> None:
    (file,) = run.glob("stages/score*/scores.json")
    document = json.loads(file.read_bytes())
    del document["metrics"]["sfid"]
    write_json(file, document | {"schema": 3, "absent": {"sfid": "mu_s is not stored"}})
    assert "adm: no sfid: mu_s is not stored" in show_report(run, "md")
    assert load_report(run).rows[0].value("adm", "sfid") is None
