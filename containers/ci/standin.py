"""A place where podman builds and runs the images with no service and no registry: `python containers/ci/standin.py`.

For root on a Debian machine with podman, runc and mmdebstrap. Makes, below $SRA_BENCH_CONTAINERS (default
~/.cache/sra-bench/containers), a configuration and a store of podman's own, and a stand-in for the base image from
Debian's packages. Prints the environment that podman needs, as `NAME=value` lines, the stand-in's name among them.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv,libpython3-dev"
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
CERTIFICATES = Path("/usr/local/share/ca-certificates")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
SEARCH_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# As in the image that it stands for: `python` in /usr/local/bin, and pip may install. Certificates are this machine's.
HOOKS = (
    'ln -s /usr/bin/python3 "$1/usr/local/bin/python"',
    'ln -s /usr/bin/python3 "$1/usr/local/bin/python3"',
    'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
    f'mkdir -p "$1{CERTIFICATES}" && cp {CERTIFICATES}/*.crt "$1{CERTIFICATES}" 2>/dev/null || true',
    'chroot "$1" update-ca-certificates',
    f'printf "[global]\\ncert = {BUNDLE}\\n" > "$1/etc/pip.conf"',
    'mkdir -p "$1/etc/uv" && echo "system-certs = true" > "$1/etc/uv/uv.toml"',
)


def folder() -> Path:
    """Where everything lies."""
    return Path(os.environ.get("SRA_BENCH_CONTAINERS") or "~/.cache/sra-bench/containers").expanduser().absolute()


def configure(root: Path) -> dict[str, str]:
    """Write podman's configuration; returns the environment that makes podman use it."""
    for name in ("storage", "run", "tmp/buildah-cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    files = int(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    ids, asked = int(Path("/proc/sys/kernel/pid_max").read_text()), resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = ids if asked == resource.RLIM_INFINITY else min(ids, asked)
    (root / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    (root / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{root}/storage"\nrunroot = "{root}/run"\n'
    )
    _share_downloads(root / "tmp" / "buildah-cache" / "sra-bench-uv")
    names = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf", "TMPDIR": "tmp"}
    return {name: str(root / place) for name, place in names.items()}


def _share_downloads(place: Path) -> None:
    """What uv has fetched for this machine need not be fetched again for the images: a build's cache mount is its."""
    if shutil.which("uv") is None or place.exists():
        return
    cache = Path(subprocess.run(["uv", "cache", "dir"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    if cache.is_dir():
        place.unlink(missing_ok=True)
        place.symlink_to(cache)


def base(root: Path, environment: dict[str, str]) -> str:
    """Name of the stand-in, which is made where it is not there."""
    name = f"localhost/sra-bench-standin:{_identity()}"
    podman = {**os.environ, **environment}
    if subprocess.run(["podman", "image", "exists", name], env=podman, check=False).returncode == 0:
        return name
    archive = root / f"base-{_identity()}.tar"
    if not archive.is_file():
        _make(archive)
    changes = ["--change", f"ENV PATH={SEARCH_PATH}", "--change", "ENV LANG=C.UTF-8"]
    subprocess.run(
        ["podman", "import", "--quiet", *changes, str(archive), name], env=podman, check=True, stdout=subprocess.DEVNULL
    )
    return name


def _identity() -> str:
    """Of the stand-in: changes with how it is made and with this machine's certificates."""
    digest = hashlib.sha256(repr((SUITE, PACKAGES, HOOKS, _sources())).encode())
    for path in sorted(CERTIFICATES.glob("*.crt")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _sources() -> str:
    return next(place for place in SOURCES if Path(place).is_file())


def _make(archive: Path) -> None:
    unfinished = archive.with_name(f"unfinished-{archive.name}")
    hooks = [f"--customize-hook={hook}" for hook in HOOKS]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *hooks]
    subprocess.run([*command, SUITE, str(unfinished), _sources()], check=True)
    unfinished.replace(archive)


def main() -> None:
    """Make the place and print how to use it."""
    root = folder()
    environment = configure(root)
    name = base(root, environment)
    print("\n".join(f"{key}={value}" for key, value in {**environment, "BASE": name}.items()))


if __name__ == "__main__":
    main()
