"""Add an example of `sra-bench site` to the built documentation."""

from pathlib import Path
from typing import Any

from benchmark.commands.site import make_site

BUNDLES = Path(__file__).parent / "tests" / "fixtures"


def on_post_build(config: Any, **_: Any) -> None:
    """Write the pages of the bundles that the tests read to `leaderboard/`."""
    make_site(sorted(BUNDLES.glob("bundle-*.zip")), Path(config.site_dir) / "leaderboard")
