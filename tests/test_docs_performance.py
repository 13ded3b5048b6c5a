"""The counted numbers of docs/performance.md are those of the program, and so are its switches."""

import re
from pathlib import Path

import pytest

from sra.config import CodecConfig
from sra.model.flops import count, training_macs
from sra.perf.cases import align_of, mode_of, model_of
from sra.runtime.speed import CPU, CUDA, REFERENCE

TEXT = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
ROWS = re.findall(r"^\| (\w+/2), (\d+) px \| ([\d. |]+) \|$", TEXT, re.MULTILINE)


def test_counted_work():
    assert len(ROWS) == 6
    mode, codec = mode_of("fast", "cpu"), CodecConfig()
    for name, resolution, numbers in ROWS:
        model = model_of(name, "sit", int(resolution))
        kinds = ("none", "sra", "dts-as", "self-flow")
        found = [count(model, codec).forward]
        found += [training_macs(model, codec, align_of(kind, None, model, mode)) for kind in kinds]
        printed = [float(n) for n in numbers.split(" | ")]
        assert [n / 1e9 for n in found] == pytest.approx(printed, abs=0.006)


def test_switches():
    section = TEXT.split("## Switches")[1].split("## Results")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\w-]+) \| ([\w-]+) \| ([\w-]+) \|", section, re.MULTILINE)
    for name, *values in rows:
        assert values == [getattr(speed, name) for speed in (REFERENCE, CUDA, CPU)], name
    assert [name for name, *_ in rows] == list(vars(CUDA))
