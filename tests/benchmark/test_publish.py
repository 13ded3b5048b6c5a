"""Publishing a bundle: what is sent, once, to a hub on this machine; what never leaves this one."""

import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmark.commands.publish import prepare
from benchmark.report.bundle import make_bundle
from benchmark.report.verify import verify_bundle
from sra.common.errors import UserError
from sra.common.files import read_json, write_json
from tests.benchmark.test_bundle import rehashed, rewritten, scores_of

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "fixtures" / "bundle-features-schema1.zip"
TO = "hf://datasets/someone/reproductions"
ROWS = {"baseline": "sit-b2-256-400k", "sra": "sit-b2-sra-256-400k"}
Finished = Callable[..., tuple[Path, Any]]


@pytest.fixture
def bundle(finished: Finished, tmp_path: Path) -> Path:
    make_bundle(finished(ROWS)[0], tmp_path / "b.zip", samples=False)
    return tmp_path / "b.zip"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as one archive needs: it is uploaded beside git, then committed."""

    kept: dict[str, bytes]
    """Contents by path in the data set."""
    large: dict[str, bytes]
    """Uploaded, by hash."""
    calls: list[str]
    refused: str
    """What is refused, by a part of its address."""

    @property
    def endpoint(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, code: int, document: Any = None, **headers: str) -> None:
        body = b"" if self.command == "HEAD" else json.dumps(document or {}).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        found = self.kept.get(self.path.partition("/resolve/main/")[2])
        if found is None:
            self.answer(404, X_Error_Code="EntryNotFound")
        else:
            self.answer(200, ETag='"1"', X_Repo_Commit="c0ffee", X_Linked_Size=str(len(found)))

    def do_GET(self) -> None:
        self.answer(404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused == "/store/":
            self.answer(403)
            return
        self.calls.append("upload")
        self.large[self.path.rpartition("/")[2]] = body
        self.answer(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer hf_token":
            self.answer(401, {"error": "Invalid username or password."})
        elif self.refused and self.refused in self.path:
            self.answer(403, {"error": "no\nrights"})
        elif self.path == "/api/repos/create":
            self.answer(409 if "create" in self.calls else 200, {"url": f"{self.endpoint}/datasets/x/y"})
            self.calls.append("create")
        elif "/preupload/" in self.path:
            modes = {"uploadMode": "lfs", "shouldIgnore": False}
            self.answer(200, {"files": [{"path": f["path"], **modes} for f in json.loads(body)["files"]]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            (wanted,) = json.loads(body)["objects"]
            upload = {"actions": {"upload": {"href": f"{self.endpoint}/store/{wanted['oid']}"}}}
            self.answer(200, {"objects": [wanted if wanted["oid"] in self.large else wanted | upload]})
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "lfsFile":
                    self.kept[line["value"]["path"]] = self.large[line["value"]["oid"]]
            self.calls.append("commit")
            self.answer(200, {"success": True, "commitOid": "c0ffee", "commitUrl": f"{TO}/commit/c0ffee"})

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    class Own(Hub):
        kept, large, calls, refused = {}, {}, [], ""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # a protocol of its own; the hub takes this one, too
    yield Own
    server.shutdown()
    server.server_close()


def publish(*arguments: object) -> tuple[int, list[str], str]:
    """Exit code, lines and errors of the command in a process of its own."""
    command = [sys.executable, "-m", "benchmark.cli.main", "publish", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_it_is_sent_once_whatever_the_archive(bundle: Path, hub: type[Hub]) -> None:
    assert publish(bundle, "--to", TO)[::2] == (2, "error: publish: expected --yes where nobody can be asked\n")
    hub.refused = "/commit/"
    code, _, errors = publish(bundle, "--to", TO, "--yes")
    assert code == 2
    assert errors.splitlines()[-1].startswith(f"error: {TO}/bundles/synthetic-")
    assert errors.endswith(": not sent: no rights\n")
    assert not hub.kept
    hub.refused = ""
    code, lines, errors = publish(bundle, "--to", TO, "--yes")
    assert (code, errors) == (0, "")
    ((place, sent),) = hub.kept.items()
    assert lines[-1] == f"sent: {TO}/{place}"
    assert sent == bundle.read_bytes()
    # The same contents, packed again.
    again = rewritten(bundle, lambda _members: None)
    assert again.read_bytes() != sent
    code, lines, _ = publish(again, "--to", TO, "--yes")
    assert (code, lines[-1]) == (0, f"there already: {TO}/{place}")
    # What was uploaded before the refusal is not uploaded again; the data set was there.
    assert hub.calls == ["create", "upload", "create", "commit"]


@pytest.mark.parametrize(
    ("token", "refused", "said"),
    [
        ("", "", "publish: expected a token of the hub (`hf auth login`, or HF_TOKEN), got none"),
        ("expired", "", "not sent: Invalid username or password."),
        ("hf_token", "/create", "not sent: no rights"),
        ("hf_token", "/store/", "Error while uploading 'bundles/"),
    ],
    ids=["no token", "wrong token", "no rights", "upload refused"],
)
def test_a_refusal_is_one_line(
    token: str, refused: str, said: str, bundle: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.refused = refused
    code, _, errors = publish(bundle, "--to", TO, "--yes")
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not hub.kept


def test_a_dry_run_lists_all_that_is_inside_and_needs_no_network(
    bundle: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, lines, errors = publish(bundle, "--to", TO, "--dry-run")
    assert (code, errors) == (0, "")
    with zipfile.ZipFile(bundle) as archive:
        sizes = {info.filename: f"{info.file_size:,}" for info in archive.infolist() if info.filename != "bundle.json"}
    listed = dict(reversed(line.split()) for line in lines if line.split()[-1] in sizes)
    assert listed == sizes
    code, _, errors = publish(bundle, "--to", TO, "--yes")
    assert code == 2
    assert len(errors.splitlines()) == 1


def test_what_is_not_sent(bundle: Path) -> None:
    def better(members: dict[str, bytes]) -> None:
        name = scores_of(members, "sra")
        members[name] = members[name].replace(b'"fid": ', b'"fid": 1')
        rehashed(members)

    with pytest.raises(UserError, match="expected files that agree, got: sra: metrics"):
        prepare(rewritten(bundle, better), TO)
    with pytest.raises(UserError, match=r"run/plan\.json: expected no private paths, got '/tmp/.*make it again"):
        prepare(OLD, TO)
    for address in ("hf://datasets/someone", "hf://someone/reproductions", "https://x/datasets/a/b"):
        with pytest.raises(UserError, match="--to: expected hf://datasets/USER/NAME"):
            prepare(bundle, address)


def test_a_bundle_tells_neither_places_nor_names(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-7.example.org")
    monkeypatch.setenv("LOGNAME", "alice")
    run, plan = finished(ROWS, name="Our secret (run)")
    own = tmp_path / "Our secret (run)"
    for stage in plan.stages:
        (stage.directory / "log.txt").write_text(
            f"lab-7:12 [0] NCCL INFO alice read /data/secret/x.npz, file:///home/secret/y and {own}/z at 3 images/s\n"
            "see https://arxiv.org/abs/2505.02831 and manifests/smoke.yaml"
        )
        document = read_json(stage.directory / "stage.json")
        assert document
        document["argv"] = ["/opt/secret place/bin/python", "-m", "x", "--out", str(stage.directory)]
        write_json(stage.directory / "stage.json", document)
    (train, *_) = (stage for stage in plan.stages if stage.kind.name == "train")
    (train.directory / "failed.json").write_text('{"key": "x", "message": "/home/secret/a: no space", "exit_code": 2}')
    provenance = read_json(run / "provenance.json")
    assert provenance
    provenance["sessions"][0]["variables"] = {"PYTHONPATH": "/srv/secret/lib:/srv/secret lib/b"}
    write_json(run / "provenance.json", provenance)
    make_bundle(run, tmp_path / "b.zip", samples=False)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        texts = {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}
    private = ("secret", "alice", "lab-7", str(tmp_path), str(Path.home()) + os.sep)
    assert [(name, word) for name, text in texts.items() for word in private if word in text] == []
    log = next(text for name, text in texts.items() if name.endswith("log.txt"))
    assert "read .../x.npz, .../y and runs/synthetic/z at 3 images/s" in log
    assert "https://arxiv.org/abs/2505.02831 and manifests/smoke.yaml" in log
    assert "python' -m x --out 'runs/synthetic/stages/" in texts["run/report/report.json"]
    text, code = verify_bundle(tmp_path / "b.zip")
    assert code == 3, text
    assert "ok: sra: reproduced" in text
    assert "secret" not in prepare(tmp_path / "b.zip", TO).text
