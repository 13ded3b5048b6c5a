"""The switch `graph=step`, with a recording of operations on a CPU in the place of a CUDA graph."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sra.config import (
    CodecConfig,
    ConfigError,
    DtsAsSettings,
    EmaConfig,
    ModelConfig,
    SelfFlowSettings,
    Size,
    SraSettings,
    TrainConfig,
    TrainJob,
)
from sra.perf.workloads import TorchEngine
from sra.runtime.random_streams import Randoms, Together
from sra.runtime.speed import parse_speed
from sra.training.nonfinite import NonFiniteError
from sra.training.step import TrainState

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=3, width=16, heads=2), resolution=32, classes=10, convention="sra")
SRA = SraSettings(blocks=(1, 2), weight_schedule="public-code")


class Tape(TorchDispatchMode):
    """Repeats operations on the tensors, and with the numbers, of their first time, as a CUDA graph does."""

    def __init__(self):
        super().__init__()
        self.operations, self.replays = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.operations.append((function, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        if self.replays == 1:
            return  # recording a CUDA graph computes nothing; this did
        for function, args, kwargs, outputs in self.operations:
            for old, new in zip(tree_leaves(outputs), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    """The recordings that were made."""
    made = []
    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(Tape()) or made[-1])
    monkeypatch.setattr(torch.cuda, "graph", lambda tape, **_: tape)
    return made


class Steps:
    """Steps on made-up latents, recorded or not."""

    def __init__(self, *, graph, together=True, align=SRA, precision="fp32", **settings):
        train = {"steps": 99, "global_batch": 4, "lr": 1e-2, "ema": EmaConfig(decay=0.9), **settings}
        settings = TrainConfig(precision=precision, **train)
        job = TrainJob(seed=0, codec=CODEC, model=MODEL, train=settings, align=align.resolved(MODEL, CODEC))
        speed = parse_speed("optimizer=fused,losses=logged").resolved("cpu")
        self.state = TrainState(job, TorchEngine(precision, torch.device("cpu"), bucket_views=True), speed)
        if graph:
            object.__setattr__(speed, "graph", "step")
            self.state = TrainState(job, self.state.engine, speed)
        self.together, self.number, self.spoilt = Together() if together else None, 0, ()

    def batches(self):
        for part in range(self.state.settings.accumulate):
            first = 4 * (self.state.settings.accumulate * self.number + part)
            randoms = Randoms(0, torch.arange(first, first + 4), self.together)
            x = randoms.normal("x", (4, 8, 8)) * (torch.nan if self.number in self.spoilt else 1)
            yield x, torch.arange(first, first + 4) % 10, randoms

    def go(self, steps, epoch=0.0):
        """Norms and losses of the steps, and all state after them."""
        told = []
        for _ in range(steps):
            result = self.state.update(self.number, epoch, self.batches())
            self.number += 1
            told += [result.norm.clone(), *(part.total.detach().clone() for part in result.losses)]
        return told, [leaf.clone() for leaf in tree_leaves(self.state.state_dict()) if isinstance(leaf, torch.Tensor)]


def assert_equal(found, expected):
    for some, others in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"together": False},
        {"accumulate": 2},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"align": DtsAsSettings(blocks=(1, 2))},
        {"align": SelfFlowSettings(blocks=(1, 2))},
    ],
    ids=["usual", "drawn one by one", "accumulated", "bf16", "fp16", "dts-as", "self-flow"],
)
def test_a_replayed_step_is_the_step_to_the_bit(settings, tapes):
    assert_equal(Steps(graph=True, **settings).go(8), Steps(graph=False, **settings).go(8))
    assert [tape.replays for tape in tapes] == [6]


@pytest.mark.parametrize("rising", [{"warmup_steps": 4}, {"ema": EmaConfig(decay=0.4, schedule="ramp")}], ids=str)
def test_a_new_number_of_the_host_makes_a_new_recording(rising, tapes):
    """Learning rate or decay rises for some steps; then the weight of the alignment falls."""
    recorded, usual = Steps(graph=True, **rising), Steps(graph=False, **rising)
    for epoch in (0.0, 151.0):
        assert_equal(recorded.go(8, epoch), usual.go(8, epoch))
    assert [tape.replays for tape in tapes][1:] == [6]


def test_a_bad_step_in_a_recording_is_named_and_changes_nothing(tapes):
    run = Steps(graph=True)
    _, before = run.go(5)
    run.spoilt = (5,)
    _, after = run.go(4)
    assert_equal([after], [before])
    assert [tape.replays for tape in tapes] == [7]
    with pytest.raises(NonFiniteError, match="training step 6: loss nan"):
        run.state.guard.read()


def test_a_loaded_checkpoint_is_continued(tapes):
    usual, recorded = Steps(graph=False), Steps(graph=True)
    usual.go(3)
    recorded.go(4)
    recorded.state.optimizer = recorded.state.engine.optimizer  # as accelerate's, it can load
    recorded.state.load_state_dict(copy.deepcopy(usual.state.state_dict()))
    recorded.number = usual.number
    assert_equal(recorded.go(5), usual.go(5))
    assert [tape.replays for tape in tapes] == [2, 3]


def test_what_cannot_be_recorded_is_refused(tapes):
    with pytest.raises(ConfigError, match="graph=step: expected a GPU and losses=logged, got cpu and losses=logged"):
        parse_speed("graph=step,losses=logged").resolved("cpu")
    with pytest.raises(ConfigError, match="got cuda and losses=every-step"):
        parse_speed("graph=step,losses=every-step").resolved("cuda")
    with pytest.raises(ConfigError, match=r"expected 1 process and train\.on_nonfinite stop, got 1 and skip"):
        Steps(graph=True, on_nonfinite="skip")
