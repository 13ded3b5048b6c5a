"""Download assets from the Hugging Face hub or over HTTP: resumed, checked, and moved to their place once complete."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.assets.catalogue import Asset, AssetError, Pins, mismatch, verify
from sra.common.files import read_json, replacing, sha256_file, write_json

if TYPE_CHECKING:
    import requests

# huggingface_hub, requests and tqdm are imported where a download starts: `fetch` without a name lists the assets.

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 60
SHOW_SECONDS = 2
"""Between two updates of the progress bar."""


def fetch(assets: list[Asset], root: Path) -> None:
    """Download the missing files of assets into a folder, and check those that are there.

    Assets that have to be obtained by hand are named last, after everything else was downloaded.

    Raises:
        AssetError: an address that cannot be read, content other than the expected one, an asset to obtain by hand.
    """
    pins = Pins(root)
    for asset in assets:
        verify(asset, pins)
        missing = asset.missing(root)
        if not missing:
            print(f"{asset.name}: present, {asset.place(root)}", flush=True)
        elif not asset.manual:
            for path in missing:
                (_from_hub if asset.hub else _from_url)(asset, path, pins)
    by_hand = [a for a in assets if a.manual and a.missing(root)]
    if by_hand:
        raise AssetError("; ".join(f"{a.name} has to be obtained by hand: {a.by_hand(root)}" for a in by_hand))


def _from_hub(asset: Asset, path: Path, pins: Pins) -> None:
    """Download one file of a hub repository, at the recorded commit, into a staging folder that continues."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    assert asset.hub is not None
    staging = pins.root / f".{asset.name}.hub"
    try:
        url = huggingface_hub.hf_hub_url(asset.hub, path.name, revision=pins.revision(asset))
        remote = huggingface_hub.get_hf_file_metadata(url)
        # The ETag of a large file is its SHA-256.
        sha256 = remote.etag if remote.etag and len(remote.etag) == hashlib.sha256().digest_size * 2 else None
        _check_offer(asset, path, pins, remote.size, sha256)
        _check_disk(asset, pins.root, remote.size)
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
        # The hub's client raises the errors of its HTTP library, which changes with its version, as well as its own.
        raise _unreachable(asset, path, error) from error
    _install(asset, Path(found), path, pins, remote.commit_hash)
    shutil.rmtree(staging)


def _from_url(asset: Asset, path: Path, pins: Pins) -> None:
    """Download one file over HTTP; continue an earlier part of the same version where the server allows it."""
    import requests

    assert asset.url is not None
    # The sidecar holds the server's mark of the version (ETag or date) that the part came from.
    part, sidecar = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")
    part.parent.mkdir(parents=True, exist_ok=True)
    earlier = read_json(sidecar) or {}
    version = str(earlier.get("version") or "") if earlier.get("url") == asset.url else ""
    start = part.stat().st_size if version and part.is_file() else 0
    headers = {"User-Agent": "sra-bench", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        with requests.get(asset.url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
            if response.status_code in range(400, 500):
                # Continuing would only be refused again.
                _remove(part, sidecar)
            response.raise_for_status()
            start = start if response.status_code == requests.codes.partial_content else 0
            length = response.headers.get("Content-Length")
            total = None if length is None else start + int(length)
            try:
                _check_offer(asset, path, pins, total, None)
            except AssetError:
                _remove(part, sidecar)
                raise
            _check_disk(asset, pins.root, None if total is None else total - start)
            write_json(sidecar, {"url": asset.url, "version": _version(response)})
            _receive(response, part, start, total, asset.name)
    except requests.RequestException as error:
        raise _unreachable(asset, path, error) from error
    sidecar.unlink()
    _install(asset, part, path, pins)


def _version(response: requests.Response) -> str | None:
    """A validator that If-Range accepts: weak ETags do not promise equal bytes."""
    etag: str | None = response.headers.get("ETag")
    date: str | None = response.headers.get("Last-Modified")
    return etag if etag and not etag.startswith("W/") else date


def _receive(response: requests.Response, part: Path, start: int, total: int | None, name: str) -> None:
    """Append the body to the first `start` bytes of the part; requests raises if the connection breaks off."""
    from tqdm import tqdm

    progress = {"total": total, "initial": start, "unit": "B", "unit_scale": True, "desc": name}
    with part.open("ab") as handle, tqdm(**progress, mininterval=SHOW_SECONDS, file=sys.stdout) as bar:
        handle.truncate(start)
        for block in response.iter_content(CHUNK_BYTES):
            handle.write(block)
            bar.update(len(block))


def _check_offer(asset: Asset, path: Path, pins: Pins, size: int | None, sha256: str | None) -> None:
    """Compare what the server says about a file, before the transfer, with what is expected.

    Raises:
        AssetError: another size or hash.
    """
    known = pins.facts(asset, path.name)
    wrong = mismatch(known, size if size is not None else known.size or 0, sha256)
    if wrong:
        raise AssetError(f"{asset.name}: {asset.address(path.name)} offers {wrong}; nothing was fetched")


def _check_disk(asset: Asset, root: Path, size: int | None) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if size is not None and size > free:
        raise AssetError(f"{asset.name}: {size / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free in {root}")


def _install(asset: Asset, part: Path, path: Path, pins: Pins, revision: str | None = None) -> None:
    """Check a complete download, move it to its place and record its hash; remove it if it is wrong.

    Raises:
        AssetError: content other than the expected one.
    """
    sha256 = sha256_file(part)
    wrong = mismatch(pins.facts(asset, path.name), part.stat().st_size, sha256)
    if wrong:
        part.unlink()
        raise AssetError(f"{asset.name}: {asset.address(path.name)} gave {wrong}; it was removed")
    with replacing(path) as temporary:
        part.replace(temporary)
    pins.record(asset, path.name, sha256, revision)
    print(f"{asset.name}: {path}, SHA-256 {sha256}", flush=True)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _unreachable(asset: Asset, path: Path, reason: object) -> AssetError:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return AssetError(
        f"{asset.name}: {asset.address(path.name)}: {lines[0]}; "
        f"the same command continues; without a network place the file at {path}"
    )
