"""For all tests of real sizes: their mark, and a folder that is removed after each; see docs/full-size.md."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.full_size)
            item.add_marker(pytest.mark.timeout(2 * 3600))


@pytest.fixture
def space() -> Iterator[Callable[[float], Path]]:
    """Makes a folder that is removed after the test, on a disk with so many GB free."""
    with contextlib.ExitStack() as stack:

        def make(gigabytes: float) -> Path:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="full-size-")))
            free = shutil.disk_usage(folder).free
            assert free > gigabytes * 1e9, f"{folder}: expected {gigabytes} GB free, got {free / 1e9:.1f}: set TMPDIR"
            return folder

        yield make
