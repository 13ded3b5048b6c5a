"""Published numbers in the documents are the registry's, with the registry's links, and the manifests do name them."""

import re
from pathlib import Path

import yaml

from benchmark.published.listing import list_published

ROOT = Path(__file__).parents[1]
TABLE = list_published(None, "markdown")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_what_the_command_prints():
    assert (ROOT / "docs" / "published.md").read_text().endswith("\n\n" + TABLE + "\n")


def test_the_first_table_names_the_manifest_of_each_row():
    text = (ROOT / "docs" / "published.md").read_text()
    header, _, *lines = TABLE.split("\n\n")[0].splitlines()
    known = {cells(line)[0]: dict(zip(cells(header), cells(line), strict=True)) for line in lines}
    shown = re.findall(r"^\| (`.*`) \| (.*) \| (.*) \| (\[.*\)) \| `manifests/(.*)` \|$", text, flags=re.M)
    assert len(shown) == 10
    for row, fid, score, source, manifest in shown:
        assert (fid, score, source) == tuple(known[row][name] for name in ("FID", "IS", "printed in"))
        variants = yaml.safe_load((ROOT / "manifests" / manifest).read_text())["variants"].values()
        assert row.strip("`") in [variant.get("published") for variant in variants]
