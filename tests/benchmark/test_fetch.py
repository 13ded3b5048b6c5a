"""Fetching from a local server: resumed, verified, pinned, and whole or not there."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.assets import catalogue
from benchmark.assets.catalogue import Asset, AssetError, Facts, Pins, located, remedy, verify
from benchmark.assets.download import fetch
from benchmark.cli.main import app

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content` at every path, with ranges; breaks off after `server.limit` bytes."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        server = self.server
        if not self.path.startswith("/api/"):  # what huggingface_hub asks the hub besides files
            server.requests.append((self.command, self.headers.get("Range"), self.headers.get("If-Range")))
        if server.status != 200:
            self.send_response(server.status)
            for name, value in server.extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and server.ranges and self.headers.get("If-Range", server.etag) == server.etag:
            start = int(wanted[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("ETag", server.etag)
        for name, value in server.extra.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(server.content[start:][: server.limit])
            self.close_connection = server.limit is not None

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A client that leaves early is what is tested, not an error."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = Server(("127.0.0.1", 0), Handler)
    server.content, server.etag, server.limit, server.ranges = CONTENT, '"v1"', None, True
    server.status, server.extra, server.requests = 200, {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def asset(server: ThreadingHTTPServer, **facts: object) -> Asset:
    url = f"http://127.0.0.1:{server.server_address[1]}/thing.pt?key=1"
    return Asset(name="thing", what="a thing", url=url, files={"thing.pt": Facts(**facts)})


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_fetched_recorded_and_not_fetched_again(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    thing = asset(server)
    fetch([thing], tmp_path)
    assert (tmp_path / "thing" / "thing.pt").read_bytes() == CONTENT
    assert files(tmp_path) == {"thing/thing.pt", "pins.json"}
    pin = json.loads((tmp_path / "pins.json").read_text())["assets"]["thing"]["files"]["thing.pt"]
    assert (pin["sha256"], pin["size"]) == (SHA256, len(CONTENT))
    asked = len(server.requests)
    fetch([thing], tmp_path)
    assert len(server.requests) == asked


def test_an_interrupted_download_resumes(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    thing, server.limit = asset(server, sha256=SHA256), 1_500_000
    with pytest.raises(AssetError, match=r"thing: .*the same command continues"):
        fetch([thing], tmp_path)
    assert not (tmp_path / "thing" / "thing.pt").exists()
    received = (tmp_path / "thing" / ".thing.pt.part").stat().st_size
    assert received > 1_400_000
    server.limit = None
    fetch([thing], tmp_path)
    assert server.requests[-1] == ("GET", f"bytes={received}-", '"v1"')
    assert (tmp_path / "thing" / "thing.pt").read_bytes() == CONTENT
    assert files(tmp_path) == {"thing/thing.pt", "pins.json"}


@pytest.mark.parametrize("change", ["version", "no ranges"])
def test_a_part_that_cannot_be_continued_starts_anew(change: str, server: ThreadingHTTPServer, tmp_path: Path) -> None:
    thing, server.limit = asset(server), 1_000_000
    with pytest.raises(AssetError):
        fetch([thing], tmp_path)
    server.limit, server.content = None, CONTENT[::-1]
    server.etag, server.ranges = ('"v2"', True) if change == "version" else ('"v1"', False)
    fetch([thing], tmp_path)
    assert (tmp_path / "thing" / "thing.pt").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"sha256": "0" * 64}, "expected 0000"),
        ({"sha256_prefix": "6726825d"}, r"expected 6726825d\.\.\."),
        ({"size": 7}, "2,097,152 bytes, expected 7"),
    ],
)
def test_another_content_is_refused_and_leaves_nothing(
    facts: dict[str, object], expected: str, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    with pytest.raises(AssetError, match=expected):
        fetch([asset(server, **facts)], tmp_path)
    assert files(tmp_path) == set()


def test_what_was_pinned_stays_pinned(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    thing = asset(server)
    fetch([thing], tmp_path)
    (tmp_path / "thing" / "thing.pt").unlink()
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(AssetError, match=f"expected {SHA256}"):
        fetch([thing], tmp_path)
    assert files(tmp_path) == {"pins.json"}


def test_a_file_placed_by_hand_is_recorded_and_then_held_to(
    server: ThreadingHTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thing, path = asset(server), tmp_path / "thing" / "thing.pt"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    verify(thing, Pins(tmp_path))
    assert f"SHA-256 {SHA256} recorded" in capsys.readouterr().out
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(AssetError, match="expected"):
        verify(thing, Pins(tmp_path))
    assert server.requests == []


def test_damaged_pins_are_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text('{"assets": {')
    with pytest.raises(AssetError, match=r"pins\.json: damaged"):
        Pins(tmp_path)


def test_an_address_that_is_gone(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(AssetError, match=r"404 .*place the file at .*thing/thing\.pt"):
        fetch([asset(server)], tmp_path)
    assert files(tmp_path) == set()
    unreachable = Asset(name="thing", what="a thing", url="http://127.0.0.1:9/x", files={"thing.pt": Facts()})
    with pytest.raises(AssetError, match="refused"):
        fetch([unreachable], tmp_path)


def test_too_little_disk_is_said_before(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("benchmark.assets.download.shutil.disk_usage", lambda _path: usage)
    with pytest.raises(AssetError, match=r"0\.0 GB needed"):
        fetch([asset(server)], tmp_path)
    assert not (tmp_path / "thing" / "thing.pt").exists()


def test_what_a_person_has_to_get_is_named_after_all_else(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGENET", raising=False)
    with pytest.raises(AssetError, match=r"imagenet-train .*by hand: accept the terms.*set IMAGENET"):
        fetch([catalogue.find("imagenet-train"), asset(server)], tmp_path)
    assert (tmp_path / "thing" / "thing.pt").is_file()
    monkeypatch.setenv("IMAGENET", str(tmp_path))
    fetch([catalogue.find("imagenet-train")], tmp_path)
    with pytest.raises(
        AssetError, match=r"dispersive-256-80ep .*README.*DispLoss.*save it as \S*/dispersive-sit-b2-256.pt"
    ):
        fetch([catalogue.find("sit-b2-dispersive-256-80ep")], tmp_path)


def hub(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Asset:
    from huggingface_hub import constants

    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    server.etag, server.extra = f'"{SHA256}"', {"X-Repo-Commit": COMMIT}
    return Asset(name="net", what="a network", hub="someone/net", files={"thing.pt": Facts()})


def test_a_file_of_the_hub_is_pinned_to_its_commit(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = hub(server, monkeypatch)
    fetch([net], tmp_path)
    assert files(tmp_path) == {"net/thing.pt", "pins.json"}
    assert (tmp_path / "net" / "thing.pt").read_bytes() == CONTENT
    assert Pins(tmp_path).revision(net) == COMMIT


def test_the_hub_offering_another_file_is_refused_before_the_transfer(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = hub(server, monkeypatch)
    wrong = Asset(name="net", what="a network", hub="someone/net", files={"thing.pt": Facts(sha256="0" * 64)})
    with pytest.raises(AssetError, match=r"offers SHA-256 .*nothing was fetched"):
        fetch([wrong], tmp_path)
    assert {command for command, _, _ in server.requests} == {"HEAD"}
    server.status, server.extra = 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}
    with pytest.raises(AssetError, match="asks for an account that accepted its terms"):
        fetch([net], tmp_path)
    assert files(tmp_path) == set()


def test_places_and_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path))
    monkeypatch.delenv("IMAGENET", raising=False)
    assert located("asset:sd-vae-ft-ema") == str(tmp_path / "sd-vae-ft-ema")
    graph = located("asset:inception-graph")
    assert graph == str(tmp_path / "inception-graph" / "classify_image_graph_def.pb")
    assert located("/some/where") == "/some/where"
    assert remedy(graph) == "`sra-bench fetch inception-graph`"
    assert "set IMAGENET" in remedy("$IMAGENET/val")
    assert remedy("$ELSEWHERE") == "the environment variable ELSEWHERE is not set"
    assert remedy("/some/where") == ""
    with pytest.raises(AssetError, match="did you mean 'sd-vae-ft-ema'"):
        located("asset:sd-vae-ft-em")


def test_the_catalogue_invents_no_hash() -> None:
    for entry in catalogue.catalogue().values():
        for facts in entry.files.values():
            assert facts.sha256 is None or re.fullmatch("[0-9a-f]{64}", facts.sha256)


def test_the_command_lists_and_fetches_nothing_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    call = CliRunner().invoke
    done = call(app, ["fetch", "--to", str(tmp_path)])
    assert done.exit_code == 0
    assert "absent   sd-vae-ft-ema" in done.output
    assert list(tmp_path.iterdir()) == []
    done = call(app, ["fetch", "sd-vae"])
    assert isinstance(done.exception, AssetError)
    assert "did you mean 'sd-vae-ft-" in str(done.exception)
    done = call(app, ["fetch", "--manifest", "manifests/smoke.yaml", "--to", str(tmp_path)])
    assert (done.exit_code, done.output) == (0, "manifests/smoke.yaml: needs no assets\n")
