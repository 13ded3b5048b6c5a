"""Options of `sra-bench evaluate` reach the tools that have them."""

from pathlib import Path

from benchmark.commands.tool_options import ToolOptions


def test_defaults_leave_the_tools_alone():
    assert ToolOptions().argv("adm") == []
    assert ToolOptions().argv("clean-fid") == ["--extractor", "own"]


def test_every_option():
    options = ToolOptions(
        cache=Path("c"),
        expect_images=50_000,
        trust_statistics=True,
        allow_other_size=True,
        intervals=False,
        views=Path("v"),
        assets=Path("a"),
        extractor="graph",
    )
    shared = ["--cache", "c", "--expect-images", "50000", "--trust-statistics", "--allow-other-size", "--no-intervals"]
    assert options.argv("adm") == [*shared, "--views", "v/adm"]
    assert options.argv("torch-fidelity") == [*shared, "--extractor", "graph", "--assets", "a"]
