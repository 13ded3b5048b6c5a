"""What the operating system, the terminal and the user's account do to a program: one line, or no trouble."""

import errno
import json
import os
import pwd
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmark.cli.main import main
from benchmark.plan.run_directory import RunDirectory
from evaluator.tools import adm_protocol, base, score_record
from evaluator.tools.score_record import NamedFile
from sra.common import files, startup
from sra.common.errors import DataError, Stopped, system_trouble
from sra.common.files import check_place, home_path, make_executable, replacing, write_json
from sra.common.npz import write_array
from sra.common.program import Output, expand_home, program
from sra.common.validation import json_text, parse_yaml, validated
from sra.runtime import job

ROOT = Path(__file__).parents[2]
REFUSED = ("EACCES", "EPERM", "ENOTDIR", "EIO", "ELOOP", "ENAMETOOLONG", "EXDEV", "ESTALE", "EROFS", "ENOSPC", "EBUSY")
GRAPH = "embedded:digits"


def fails(number: int, place: str = "/data/x") -> OSError:
    return OSError(number, os.strerror(number), place)


def raising(error: BaseException):
    def act(*_: object, **__: object) -> None:
        raise error

    return act


# -- errors of the operating system ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("entry", ["command", "job", "tool"])
def test_what_the_system_refuses_is_one_line(entry: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    error = fails(getattr(errno, name))

    def start() -> None:
        if entry == "command":
            monkeypatch.setattr("benchmark.published.listing.list_published", raising(error))
            main(["published"])
        elif entry == "job":
            job.run(raising(error))
        else:
            with program():
                raise error

    with pytest.raises(SystemExit, match="2"):
        start()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: /data/x: ")


def test_an_error_without_a_place_is_the_output_or_a_bug() -> None:
    assert "the output: the disk reports an error" in str(system_trouble(OSError(errno.EIO, "Input/output error")))
    assert system_trouble(OSError("truncated")) is None
    assert system_trouble(OSError(errno.EBADF, "Bad file descriptor")) is None


def test_a_job_names_its_folder_where_the_system_names_no_file(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["job", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        job.run(raising(OSError(errno.EIO, "Input/output error")))
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: the disk reports an error")


def test_safetensors_tells_the_systems_error_as_text(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as failed, replacing(tmp_path / "weights"):
        raise Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert str(system_trouble(failed.value)).startswith(f"{tmp_path / 'weights'}: no space left")
    assert not list(tmp_path.iterdir())


def test_a_removed_current_folder_is_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    monkeypatch.setattr(os, "getcwd", raising(gone))
    with pytest.raises(SystemExit, match="2"):
        main(["plan", str(ROOT / "manifests" / "smoke.yaml")])
    assert capsys.readouterr().err == "error: the current folder has been removed; change to another one\n"


def test_a_job_starts_and_a_command_says_why_if_the_current_folder_has_been_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = (
        "import os, sys; os.rmdir(os.getcwd()); from benchmark.run.process import run_job\n"
        "print(run_job('job', [sys.executable, '-c', 'import os; print(os.getcwd())'], capture=True).strip())\n"
        "from benchmark.cli.main import main; main(['parity', 'x'])"
    )
    environment, command = {**os.environ, "PYTHONPATH": str(ROOT)}, [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "gone", env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "/\n")
    assert done.stderr == "error: the current folder has been removed; change to another one\n"


# -- what a file system does not have -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", files.UNSUPPORTED)
def test_fsync_and_chmod_are_done_without(number: int, monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(files, "_warned", set())
    monkeypatch.setattr(os, "fsync", raising(OSError(number, "no")))
    monkeypatch.setattr(Path, "chmod", raising(OSError(number, "no")))
    for name in ("a.json", "b.json"):
        write_json(tmp_path / name, {"x": 1})
        make_executable(tmp_path / name)
    assert json.loads((tmp_path / "b.json").read_text()) == {"x": 1}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[-1].split(" (")[0] for line in lines] == [
        "this file system has no fsync",
        "this file system has no chmod",
    ]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_used_with_a_warning(number: int, monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(files, "_warned", set())
    monkeypatch.setattr("fcntl.fcntl", raising(OSError(number, "no")))
    with RunDirectory(tmp_path).locked():
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}: this file system has no locks")


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_array(tmp_path / "a.npy", np.zeros(2))
        with replacing(tmp_path / "a.safetensors") as temporary:
            save_file({"x": np.zeros(2)}, temporary)
        write_json(tmp_path / "deep" / "b.json", {})
        make_executable(tmp_path / "deep" / "b.json")
    finally:
        os.umask(before)
    for name in ("a.npy", "a.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "deep" / "b.json").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o750


# -- places ---------------------------------------------------------------------------------------------------------


def test_the_home_folder_is_expanded_wherever_a_path_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.clusters.slurm.site import Container

    monkeypatch.setenv("HOME", "/home/me")
    given = ["run", "~/m.yaml", "--out=~/runs", "--set", "data.path=~/x", "--set=a=~", "~nobody-there/x"]
    assert expand_home(given) == ["run", "/home/me/m.yaml", "--out=/home/me/runs", *given[3:]]
    document = parse_yaml("{kind: apptainer, image: ~/x.sif, mounts: ['~/data:/data']}")
    container = validated(Container, document, "site.yaml")
    assert (container.image, container.mounts) == ("/home/me/x.sif", ("/home/me/data:/data",))


def test_a_place_for_scores_is_checked_before_anything_is_scored(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").touch()
    for place, named in ((tmp_path, tmp_path), (tmp_path / "file" / "scores.json", tmp_path / "file")):
        monkeypatch.setattr("benchmark.commands.evaluate.score_samples", raising(AssertionError("scored")))
        with pytest.raises(SystemExit, match="2"):
            main(["evaluate", "--samples", "x", "--reference", "x", "--json", str(place)])
        assert f"--json {named}: expected a f" in capsys.readouterr().err
    check_place(tmp_path / "new" / "scores.json", "--json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_device_or_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    check_place(pipe, "--json")
    write_json(pipe, [])
    assert os.read(reader, 9) == b"[]\n"
    os.close(reader)
    assert pipe.is_fifo()


def test_scores_are_shown_even_if_they_cannot_be_stored(tmp_path: Path, monkeypatch, capsys) -> None:
    found = ([{"errors": {}, "metrics": {}}], "adm fid 1.5")
    monkeypatch.setattr("benchmark.commands.evaluate.score_samples", lambda *_: found)
    monkeypatch.setattr("benchmark.cli.main.write_json", raising(fails(errno.EIO)))
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--samples", "x", "--reference", "x", "--json", str(tmp_path / "x.json")])
    printed = capsys.readouterr()
    assert printed.out == "adm fid 1.5\n"
    assert printed.err.startswith("error: /data/x: the disk reports an error")


@pytest.mark.parametrize("option", ["--json", "--cache", "--views"])
def test_a_tool_checks_its_places_first(option: str, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").touch()
    places = {"--json": tmp_path / "x.json", "--cache": tmp_path, "--views": tmp_path, option: tmp_path / "file" / "x"}
    given = [part for name, place in places.items() for part in (name, str(place))]
    given += ["--samples", "x", "--reference", "x", "--graph", GRAPH]
    monkeypatch.setattr(sys, "argv", ["adm", *given])
    with pytest.raises(SystemExit, match="2"):
        base.run("adm", "1", raising(AssertionError("scored")), adm_protocol.options)
    assert f"{option} {tmp_path / 'file'}: expected a folder, got a file" in capsys.readouterr().err


def test_a_tool_shows_its_scores_before_it_stores_them(tmp_path: Path, monkeypatch, capsys) -> None:
    np.savez(tmp_path / "x.npz", arr_0=np.arange(768, dtype=np.uint8).reshape(4, 8, 8, 3))
    images = ["--samples", str(tmp_path / "x.npz"), "--reference", str(tmp_path / "x.npz"), "--graph", GRAPH]
    monkeypatch.setattr(sys, "argv", ["adm", *images, "--json", str(tmp_path / "scores.json")])
    monkeypatch.setattr(score_record, "write", raising(fails(errno.ESTALE)))
    with pytest.raises(SystemExit, match="2"):
        base.run("adm", "1", lambda _: [base.Result(metrics={"fid": 1.5}, settings=None)])
    printed = capsys.readouterr()
    assert "fid 1.5" in printed.out
    assert printed.err.startswith("error: /data/x: the file server has lost the file")


# -- the reader -----------------------------------------------------------------------------------------------------


def test_an_output_that_nobody_reads_stops_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    pipe = Output(write, "w")
    assert pipe.write(b"nobody") == 6
    assert pipe.lost is None
    full = Output(os.open("/dev/full", os.O_WRONLY), "w")
    assert full.write(b"too much") == 8
    assert full.lost is not None
    assert full.lost.errno == errno.ENOSPC


def test_a_lost_reader_and_a_closed_output_end_no_command(tmp_path: Path) -> None:
    command = f"{sys.executable} -m benchmark.cli.main published"
    for redirected, code in ((" | true", 0), (" >&- 2>&- <&-", 0), (" >/dev/full", 2)):
        done = subprocess.run(
            ["bash", "-c", f'{command}{redirected}; exit "${{PIPESTATUS[0]}}"'],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == code, redirected
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
    assert done.stderr.startswith("error: standard output: no space left")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_is_printed_in_any_encoding(encoding: str, monkeypatch, tmp_path: Path) -> None:
    from sra.common.program import _wrapped

    name = os.fsdecode(b"caf\xe9-\xe2\x89\xa4.npz")
    with (tmp_path / "out").open("w", encoding=encoding) as stream:
        print(name, file=_wrapped(stream.fileno(), stream), flush=True)
    assert b"caf" in (tmp_path / "out").read_bytes()
    write_json(tmp_path / "x.json", {"name": name})
    assert json.loads((tmp_path / "x.json").read_text(encoding="ascii"))["name"] == name
    record = NamedFile(name=name, sha256="0" * 64)
    assert json.loads(json_text(record))["name"] == name


# -- the user -------------------------------------------------------------------------------------------------------


def test_a_home_folder_that_is_closed_is_done_without(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / ".cache").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda place, _: place != tmp_path / ".cache")
    with program():
        assert Path("~/x").expanduser() == Path("/no-home-folder/x")
    assert capsys.readouterr().err == (
        f"warning: {tmp_path / '.cache'}: permission denied; done without a home folder\n"
    )


def test_a_user_whom_the_system_does_not_know_has_a_name_and_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    monkeypatch.setattr(pwd, "getpwuid", raising(KeyError("uid")))
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert home_path("~/x") == Path("~/x")
    with program():
        assert getpass.getuser() == f"uid-{os.getuid()}"
        assert Path("~/x").expanduser() == Path("/no-home-folder/x")
    for name in ("HOME", "USER"):
        monkeypatch.delenv(name, raising=False)


# -- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", startup.STOP_SIGNALS)
def test_every_stop_signal_ends_a_command_with_75(number: int, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        raise AssertionError("goes on")

    before = signal.getsignal(number)
    monkeypatch.setattr("benchmark.published.listing.list_published", interrupted)
    with pytest.raises(SystemExit, match="75"):
        main(["published"])
    assert capsys.readouterr().err == f"{startup.SAID_AT_STOP}\n"
    assert signal.getsignal(number) is before


def test_a_wait_for_a_lock_ends_on_request(tmp_path: Path, capsys) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))

    def wait() -> None:
        with program(), RunDirectory(tmp_path).locked(["0" * 16], patient=True):
            raise AssertionError("locked twice")

    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with RunDirectory(tmp_path).locked(), pytest.raises(SystemExit, match="75"):
        wait()
    signal.signal(signal.SIGALRM, before)
    assert capsys.readouterr().err == f"{startup.SAID_AT_STOP}\n"


@pytest.mark.parametrize("module", ["benchmark.cli.main", "sra.training.train"])
def test_an_interrupt_while_modules_are_imported_is_quiet(module: str) -> None:
    """The interrupt arrives at the first import after the package's own."""
    code = (
        "import os, runpy, signal, sys; sys.orig_argv = ['python', '-m', 'MODULE']; sys.argv = ['-m']\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('typer', 'torch'): os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "runpy.run_module('MODULE', run_name='__main__')\n"
    ).replace("MODULE", module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (75, f"{startup.SAID_AT_STOP}\n")


def test_a_stop_that_a_library_turns_into_its_own_error_is_a_stop(capsys) -> None:
    def build(*, cause: bool) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Stopped as error:
            if cause:
                raise ImportError("no module") from error
            raise ValueError("in the schema:\n  Stopped: ") from None

    for cause in (True, False):
        with pytest.raises(SystemExit, match="75"), program():
            build(cause=cause)
        assert capsys.readouterr().err == f"{startup.SAID_AT_STOP}\n"
    with pytest.raises(ValueError, match="Stopped"), program():
        raise ValueError("Stopped: but nobody asked")


def test_what_a_job_waits_for_in_foreign_code_does_not_keep_it() -> None:
    """A thread acts on the signal while the main thread is in a system call that Python restarts."""
    said: list[bool] = []
    read, write = os.pipe()

    def act() -> None:
        said.append(True)
        os.write(write, b"x")

    with job.on_stop(act):
        os.kill(os.getpid(), signal.SIGTERM)
        assert os.read(read, 1) == b"x"
    assert said == [True]
    with pytest.raises(Stopped):
        job.check_stop()
    job._stop_requested = False


def test_errors_of_input_stay_one_line(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        job.run(raising(DataError("x: expected y")))
    assert capsys.readouterr().err == "error: x: expected y\n"
