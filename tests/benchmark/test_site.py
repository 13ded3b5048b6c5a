"""Site files: what they mean, and what is refused in one line."""

from pathlib import Path

import pytest

from benchmark.clusters.site_file import section
from benchmark.clusters.slurm.site import SlurmSite, seconds_of, site_path
from sra.config import UserError

ROOT = Path(__file__).parents[2]
SMALL = "slurm: {gpu: {time: '5'}, cpu: {time: '1'}%s}"


def load(tmp_path: Path, text: str) -> SlurmSite:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return section(path, "slurm", SlurmSite)


def test_the_example_is_a_site() -> None:
    site = section(ROOT / "containers" / "slurm" / "site.example.yaml", "slurm", SlurmSite)
    assert site.group("train").processes == 16
    assert site.group("score", "adm") is site.cpu
    assert site.group("latents") is site.gpu


def test_places_of_kinds_and_of_tools(tmp_path: Path) -> None:
    site = load(tmp_path, SMALL % ", stages: {score: gpu, adm: cpu, images: gpu}")
    tools = {tool: site.group_name("score", tool) for tool in ("adm", "clean-fid")}
    assert tools == {"adm": "cpu", "clean-fid": "gpu"}
    assert [site.group_name(kind) for kind in ("images", "train", "report")] == ["gpu", "gpu", "cpu"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SMALL % ", prot: 1", r"slurm: expected one of the keys .*, got 'prot' .did you mean 'port'\?"),
        (
            "slurm: {gpu: {time: '5', partion: x}, cpu: {time: '1'}}",
            r"gpu: expected one of the keys .*, got 'partion' .did you mean 'partition'",
        ),
        ("slurn: {}", r"section: .*'slurn'.*did you mean 'slurm'"),
        ("kubernetes: {}", "section 'slurm'"),
        (
            "slurm: {gpu: {time: 12:00:00}, cpu: {time: '1'}}",
            "column 21 expected YAML: 12:00:00 is .* in base 60",
        ),
        ("slurm: {gpu: {time: soon}, cpu: {time: '1'}}", r"gpu\.time: .*'soon'"),
        ("slurm: {gpu: {time: '5'}}", r"cpu: missing"),
        ("slurm: {gpu: {time: '5', nodes: 0}, cpu: {time: '1'}}", r"gpu\.nodes: .*got 0"),
        ("slurm: {gpu: {time: '5', options: [exclusive]}, cpu: {time: '1'}}", r"gpu\.options.*'exclusive'"),
        (SMALL % ", stages: {training: gpu}", r"stages\.training: expected 'images'"),
        (SMALL % ", container: {kind: pyxis}", r"container\.image: .*'pyxis'.*got None"),
        (SMALL % ", container: {image: x}", r"container\.image: .*'none'.*got 'x'"),
        (SMALL % ", environment: ['A=1']", "environment.*'A=1'"),
        (SMALL % ", checkpoint_rate: 0", "checkpoint_rate: .*got 0"),
        ("slurm: [", "line 1, column 9 expected YAML: "),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        load(tmp_path, text)
    assert str(tmp_path / "site.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_where_the_site_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRA_BENCH_SITE", raising=False)
    assert site_path(None) == Path("site.yaml")
    monkeypatch.setenv("SRA_BENCH_SITE", "/etc/site.yaml")
    assert site_path(None) == Path("/etc/site.yaml")
    assert site_path(tmp_path) == tmp_path
    with pytest.raises(UserError, match=r"none\.yaml: No such file or directory; --site names"):
        section(tmp_path / "none.yaml", "slurm", SlurmSite)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("5", 300), ("5:30", 330), ("1:05:30", 3930), ("1-2", 93600), ("1-2:3", 93780), ("1-2:3:4", 93784)],
)
def test_times_are_slurms(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds
