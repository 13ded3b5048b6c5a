"""A real Slurm of this machine's own: munge, the controller and two virtual nodes in a private folder."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("n0", "n1")
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.sock,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=5
MinJobAge=300
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=cpu Nodes=n[0-1] Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n[0-1] MaxTime=INFINITE State=UP
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.timeout(900))


class Slurm:
    """Daemons of one cluster, and its commands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "SLURM_CONF": str(root / "slurm.conf")}
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._write()
        munge = ["--key-file", "key/munge.key", "--socket", "run/munge.sock", "--pid-file", "run/munged.pid"]
        munge += ["--seed-file", "key/munge.seed", "--log-file", "key/munged.log"]
        paths = [part if part.startswith("--") else str(self.root / part) for part in munge]
        self._daemon("munged", "--foreground", *paths)
        self.wait(lambda: (self.root / "run" / "munge.sock").exists(), 10)
        self._daemon("slurmctld", "-D", "-c")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        self.wait(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D", "-p", "cpu").strip() == "2", 30)

    def _write(self) -> None:
        for name, mode in (("key", 0o700), ("run", 0o711), ("state", 0o700), ("spool", 0o755)):
            (self.root / name).mkdir()
            (self.root / name).chmod(mode)
        key = self.root / "key" / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host = socket.gethostname()
        ports = free_ports(1 + len(NODES))
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        text = CONFIG.format(host=host, port=ports[0], root=self.root, nodes="\n".join(nodes))
        (self.root / "slurm.conf").write_text(text)

    def _daemon(self, *argv: str) -> None:
        with (self.root / f"{argv[0]}.output").open("ab") as output:
            self.daemons.append(subprocess.Popen(argv, stdout=output, stderr=output, env=self.environment))

    def stop(self) -> None:
        """Cancel all jobs, then end the daemons: their end does not stop jobs."""
        try:
            self.run("scancel", "--user=root")
            self.wait(lambda: not self.run("squeue", "-h"), 30)
        finally:
            for daemon in reversed(self.daemons):
                daemon.send_signal(signal.SIGTERM)
            for daemon in self.daemons:
                try:
                    daemon.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            self._sweep()

    def _sweep(self) -> None:
        """Kill processes that still run under this cluster's configuration."""
        for process in psutil.process_iter(["environ"]):
            environment = process.info["environ"] or {}
            if environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def run(self, *argv: str) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, env=self.environment, timeout=60)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (AssertionError, OSError):
                if time.monotonic() > deadline:
                    raise
            died = [daemon.args for daemon in self.daemons if daemon.poll() is not None]
            assert not died, f"{died}: {self.logs()}"
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.logs()}"
            time.sleep(0.2)

    def bring_back(self, node: str) -> None:
        """A node that was set down, unless it has come back by itself: its daemon registers again in its own time."""

        def is_up() -> bool:
            if "down" not in self.run("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T"):
                return True
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
            return False

        self.wait(is_up, 60)

    def logs(self) -> str:
        return "\n".join(
            f"{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in sorted(self.root.glob("*.output"))
        )

    def queue(self) -> dict[str, dict[str, str]]:
        """State, restarts and number of every job by its name."""
        lines = self.run("squeue", "-h", "-t", "all", "-O", "Name:60,State:20,RestartCnt:10,JobID:12").splitlines()
        keys = ("name", "state", "restarts", "id")
        rows = [dict(zip(keys, line.split(), strict=True)) for line in lines]
        return {row["name"]: row for row in rows}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if absent:
        pytest.skip(f"no {', '.join(absent)} on this machine; containers/ci/install-slurm installs Slurm")
    if os.getuid() != 0:
        pytest.skip("these daemons run as root")
    # Not below pytest's folders: munge wants its socket to be reached by everybody.
    root = Path(tempfile.mkdtemp(prefix="slurm-test-"))
    root.chmod(0o711)
    cluster = Slurm(root)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)
