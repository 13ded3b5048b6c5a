"""The page of manifest keys is made from the classes that read manifests, and its example is one."""

import textwrap
from pathlib import Path

from benchmark.manifest.reference import reference
from benchmark.manifest.schema import load

PAGE = (Path(__file__).parents[1] / "docs" / "manifest.md").read_text()


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.endswith("\n\n" + reference() + "\n")


def test_the_example(tmp_path: Path) -> None:
    blocks = [block for block in PAGE.split("\n\n") if block.startswith("    ")]
    (tmp_path / "m.yaml").write_text(textwrap.dedent(blocks[0]))
    assert [run.variant for run in load(tmp_path / "m.yaml").runs] == ["baseline", "sra"]
