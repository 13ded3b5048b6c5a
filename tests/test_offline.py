"""Machines without a network: what lies at the hub is asked for in one line; `test_end_to_end` has a whole run."""

from pathlib import Path

import pytest

from tests.shut_in import ShutIn

OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def shut_in(tmp_path: Path) -> ShutIn:
    found = ShutIn(tmp_path)
    found.require()
    return found


def test_what_is_reached_for_is_seen(shut_in: ShutIn) -> None:
    done = shut_in("-c", "import urllib.request as u; u.urlopen('http://example.invalid')")
    assert done.returncode == 1
    assert "example.invalid" in shut_in.tried


def test_a_model_that_is_not_in_the_hubs_cache(shut_in: ShutIn, tmp_path: Path) -> None:
    code = "from sra.model.vae import load_codec; from sra.config import CodecConfig\n"
    code += "from sra.common.errors import DataError\n"
    code += "try: load_codec(CodecConfig(path='nobody/nothing'))\nexcept DataError as error: print(error)"
    done = shut_in("-c", code, **OFFLINE)
    where = tmp_path / "hub" / "hub"
    (line,) = done.stdout.splitlines()
    assert line.startswith("codec.path nobody/nothing: ")
    assert all(part in line for part in (str(where), "HF_HUB_OFFLINE is set", "asset:sd-vae-ft-ema"))
    assert shut_in.tried == ""


def test_fetch_says_that_it_may_not(shut_in: ShutIn) -> None:
    done = shut_in("-m", "benchmark.cli.main", "fetch", "sd-vae-ft-ema", **OFFLINE)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "without a network place the file at" in line
    assert "offline" in line.lower()
    assert shut_in.tried == ""
