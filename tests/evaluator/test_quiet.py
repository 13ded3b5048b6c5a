"""Silence below Python's own streams."""

import os
import sys

import pytest

from evaluator.tools.quiet import silent


def lose_and_fail() -> None:
    with silent():
        os.write(2, b"lost")
        raise ImportError


def test_only_what_is_written_within_is_lost(capfd):
    os.write(2, b"before ")
    with pytest.raises(ImportError):
        lose_and_fail()
    os.write(2, b"after")
    print(" and", file=sys.stderr)
    assert capfd.readouterr().err == "before after and\n"
