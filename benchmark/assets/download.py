"""`sra-bench fetch`: assets onto this machine, because somebody asked. Resumed, verified, and whole or not there."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import Asset, AssetError, Facts, Pins, mismatch, verify
from sra.common.files import read_json, sha256_file, write_json

CHUNK = 1 << 20
TIMEOUT_SECONDS = 60
SHOW_SECONDS = 2.0

Hash = Any
"""A `hashlib` object."""


def fetch(assets: list[Asset], root: Path) -> None:
    """Put assets into a folder, those that are there being verified only.

    What a person has to get by hand is named at the end, after everything else was fetched.

    Raises:
        AssetError: an address that cannot be read, a content that is not the expected one, something to get by hand.
    """
    pins = Pins(root)
    for asset in assets:
        verify(asset, pins)
        missing = asset.missing(root)
        if not missing:
            print(f"{asset.name}: present, {asset.place(root)}", flush=True)
        elif not asset.manual:
            for path in missing:
                (_from_hub if asset.hub else _from_address)(asset, path, pins)
    by_hand = [a for a in assets if a.manual and a.missing(root)]
    if by_hand:
        raise AssetError("; ".join(f"{a.name} has to be got by hand: {a.manual}" for a in by_hand))


def _keep(asset: Asset, part: Path, path: Path, pins: Pins, sha256: str, revision: str | None = None) -> None:
    """Move a verified file to its place and record its hash; a wrong one is removed.

    Raises:
        AssetError: another content than expected.
    """
    wrong = mismatch(pins.facts(asset, path.name), part.stat().st_size, sha256)
    if wrong:
        part.unlink()
        raise AssetError(f"{asset.name}: {asset.address(path.name)} gave {wrong}; it was removed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.chmod(0o644)
    part.replace(path)
    pins.record(asset, path.name, sha256, revision)
    print(f"{asset.name}: {path}, SHA-256 {sha256}", flush=True)


def _unreachable(asset: Asset, path: Path, reason: object) -> AssetError:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return AssetError(
        f"{asset.name}: {asset.address(path.name)}: {lines[0]}; "
        f"the same command continues; without a network place the file at {path}"
    )


# -- a file of the hub ------------------------------------------------------------------------------------------


def _from_hub(asset: Asset, path: Path, pins: Pins) -> None:
    """One file through huggingface_hub, into a folder beside its place until it is verified."""
    # A second of imports that nobody else pays.
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    assert asset.hub is not None
    staging = pins.root / f".{asset.name}.hub"
    try:
        url = huggingface_hub.hf_hub_url(asset.hub, path.name, revision=pins.revision(asset))
        remote = huggingface_hub.get_hf_file_metadata(url)
        _check_before(asset, path, pins, remote.size, remote.etag)
        found = huggingface_hub.hf_hub_download(
            asset.hub, path.name, revision=remote.commit_hash or pins.revision(asset), local_dir=staging
        )
    except AssetError:
        raise
    except GatedRepoError as error:
        raise AssetError(
            f"{asset.name}: huggingface.co/{asset.hub} asks for an account that accepted its terms: "
            f"accept them there, run `hf auth login`, then fetch again"
        ) from error
    except Exception as error:
        # The hub's client raises the errors of its HTTP library, which changes with its version, besides its own.
        raise _unreachable(asset, path, error) from error
    _keep(asset, Path(found), path, pins, sha256_file(Path(found)), remote.commit_hash)
    shutil.rmtree(staging)


def _check_before(asset: Asset, path: Path, pins: Pins, size: int | None, etag: str | None) -> None:
    """The hub tells the size, and of large files the SHA-256, before anything is transferred.

    Raises:
        AssetError: they are not the expected ones, or the disk is too small.
    """
    sha256 = etag if etag and len(etag) == hashlib.sha256().digest_size * 2 else None
    known = pins.facts(asset, path.name)
    wrong = mismatch(known, size if size is not None else known.size or 0, sha256)
    if wrong:
        raise AssetError(f"{asset.name}: {asset.address(path.name)} offers {wrong}; nothing was fetched")
    _check_disk(asset, pins.root, size)


def _check_disk(asset: Asset, root: Path, size: int | None) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if size is not None and size > free:
        raise AssetError(f"{asset.name}: {size / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free in {root}")


# -- a file of an address ---------------------------------------------------------------------------------------


def _from_address(asset: Asset, path: Path, pins: Pins) -> None:
    """One file by HTTP; a part that an earlier try left is continued where the server allows it."""
    assert asset.url is not None
    part = path.with_name(f".{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    known = _Part(part, asset.url)
    try:
        with _open(asset.url, known) as response:
            digest, start = known.resumed(response)
            total = _total(response, start)
            if total is not None:
                _check_total(asset, pins.facts(asset, path.name), part, total)
                _check_disk(asset, pins.root, total - start)
            _copy(response, part, digest, start, _Progress(asset.name, total, start))
    except urllib.error.HTTPError as error:
        known.forget(unless=error.code >= 500)
        raise _unreachable(asset, path, f"HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _unreachable(asset, path, getattr(error, "reason", error)) from error
    size = part.stat().st_size
    if total is not None and size < total:
        raise _unreachable(asset, path, f"the connection broke off at {size:,} of {total:,} bytes")
    known.sidecar.unlink(missing_ok=True)
    _keep(asset, part, path, pins, digest.hexdigest())


class _Part:
    """What an earlier try left of a file, and the server's mark (ETag or date) of the version it came from."""

    def __init__(self, part: Path, url: str) -> None:
        self.part, self.url = part, url
        self.sidecar = part.with_name(f"{part.name}.json")
        left = read_json(self.sidecar) or {}
        self.mark = left.get("mark") if left.get("url") == url else None
        self.size = part.stat().st_size if self.mark and part.is_file() else 0

    def headers(self) -> dict[str, str]:
        """Ask for the rest, provided that the file has not changed."""
        return {"Range": f"bytes={self.size}-", "If-Range": self.mark} if self.size and self.mark else {}

    def resumed(self, response: http.client.HTTPResponse) -> tuple[Hash, int]:
        """The hash so far and the bytes that are kept; the mark of the version is written down."""
        start = self.size if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        digest = hashlib.sha256()
        with self.part.open("ab") as handle:
            handle.truncate(start)
        with self.part.open("rb") as handle:
            while block := handle.read(CHUNK):
                digest.update(block)
        write_json(self.sidecar, {"url": self.url, "mark": _version(response)})
        return digest, start

    def forget(self, *, unless: bool) -> None:
        """Remove the part, for a refusal that continuing would only repeat."""
        if not unless:
            self.part.unlink(missing_ok=True)
            self.sidecar.unlink(missing_ok=True)


def _version(response: http.client.HTTPResponse) -> str | None:
    """A mark that If-Range accepts: weak ETags do not promise equal bytes."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _open(url: str, known: _Part) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "sra-bench", **known.headers()})  # noqa: S310 - http(s): checked by Asset
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    return response


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length is not None else None


def _check_total(asset: Asset, facts: Facts, part: Path, total: int) -> None:
    wrong = mismatch(facts, total, None)
    if wrong:
        for leftover in (part, part.with_name(f"{part.name}.json")):
            leftover.unlink(missing_ok=True)
        raise AssetError(f"{asset.name}: {asset.url} offers {wrong}; nothing was fetched")


def _copy(
    response: http.client.HTTPResponse, part: Path, digest: Hash, start: int, show: Callable[[int], None]
) -> None:
    with part.open("ab") as handle:
        done = start
        while block := response.read(CHUNK):
            handle.write(block)
            digest.update(block)
            done += len(block)
            show(done)


class _Progress:
    """A line with size, rate and time left, at most one every two seconds."""

    def __init__(self, name: str, total: int | None, start: int) -> None:
        self.name, self.total, self.start = name, total, start
        self.began = self.shown = time.monotonic()

    def __call__(self, done: int) -> None:
        """Count to `done` bytes."""
        now = time.monotonic()
        if now - self.shown < SHOW_SECONDS and done != self.total:
            return
        self.shown = now
        rate = (done - self.start) / max(now - self.began, 1e-9)
        text = f"{self.name}: {done / 1e6:,.1f}"
        if self.total is not None:
            text += f" of {self.total / 1e6:,.1f} MB, {(self.total - done) / max(rate, 1e-9):,.0f} s left"
        print(f"{text}, {rate / 1e6:,.1f} MB/s", flush=True)
