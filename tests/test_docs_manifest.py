"""The page of manifest keys is made from the classes that read manifests."""

from pathlib import Path

from benchmark.manifest.reference import reference

PAGE = (Path(__file__).parents[1] / "docs" / "manifest.md").read_text()


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.endswith("\n\n" + reference() + "\n")
