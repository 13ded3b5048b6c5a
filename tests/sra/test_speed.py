"""Switches of speed: each gives the same steps; late reading of the losses keeps the promise of the early one."""

import dataclasses
import typing

import numpy as np
import pytest
import torch
import torch._dynamo.testing

from sra.config import (
    CodecConfig,
    ConfigError,
    DtsAsSettings,
    EmaConfig,
    ModelConfig,
    SampleConfig,
    Size,
    SraSettings,
    TrainConfig,
    TrainJob,
)
from sra.model.transformer import COMPILE_OPTIONS, build
from sra.perf.cases import mode_of
from sra.perf.workloads import TorchEngine
from sra.runtime.random_streams import Randoms
from sra.runtime.speed import REFERENCE, Speed, parse_speed
from sra.sampling.pipeline import Decoder, map_in_background
from sra.sampling.samplers import SamplerInputs, sample
from sra.training.losses import StepLosses
from sra.training.nonfinite import NonFiniteError, NonFiniteGuard
from sra.training.optimizer import load_optimizer
from sra.training.step import TrainState

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=3, width=16, heads=2), resolution=32, classes=10, convention="sra")
TRAIN = TrainConfig(steps=9, global_batch=4, lr=1e-2, precision="fp32", ema=EmaConfig(decay=0.9))
CPU = torch.device("cpu")
ON_DEVICE = parse_speed("optimizer=fused,losses=logged")


class Run:
    """A few steps on made-up latents."""

    def __init__(self, speed=None, align=None, settings=TRAIN):
        speed = (speed or Speed()).resolved("cpu")
        align = None if align == "none" else align or SraSettings(blocks=(1, 2))
        job = TrainJob(seed=0, codec=CODEC, model=MODEL, train=settings, align=align)
        self.training = TrainState(job, TorchEngine("fp32", CPU, bucket_views=speed.buckets == "views"), speed)
        self.number, self.spoilt = 0, ()

    def _batch(self):
        randoms = Randoms(0, torch.arange(self.number * 4, self.number * 4 + 4))
        x = randoms.normal("x", (4, 8, 8))
        return (x * torch.nan if self.number in self.spoilt else x), torch.arange(4), randoms

    def go(self, steps):
        losses = []
        for _ in range(steps):
            result = self.training.update(self.number, 0.0, [self._batch()])
            self.number += 1
            losses.append((float(result.losses[-1].total.detach()), float(result.norm)))
        return losses

    def state(self):
        parameters = [*self.training.module.parameters(), *self.training.ema.parameters()]
        moments = [v for state in self.training.engine.optimizer.state.values() for v in state.values()]
        return [v.detach().clone() for v in (*parameters, *moments)]


@pytest.fixture(scope="module")
def plain():
    return Run().go(4)


@pytest.mark.parametrize("switches", ["teacher=whole", "ema=loop", "transfer=pinned", "buckets=copies"])
def test_switches_that_change_no_bit(switches, plain):
    assert Run(parse_speed(switches)).go(4) == plain


@pytest.mark.parametrize("switches", ["optimizer=fused", "optimizer=fused,losses=logged"])
def test_switches_that_change_rounding(switches, plain):
    assert np.array(Run(parse_speed(switches)).go(4)) == pytest.approx(np.array(plain), rel=1e-4)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_gradients_are_clipped_by_the_fused_optimizer_too(clip):
    settings = dataclasses.replace(TRAIN, clip=clip)
    expected, run = Run(parse_speed("optimizer=fused"), settings=settings), Run(ON_DEVICE, settings=settings)
    assert np.array(run.go(4)) == pytest.approx(np.array(expected.go(4)), rel=1e-5)
    moments = [state["exp_avg"] for state in run.training.engine.optimizer.state.values()]
    theirs = [state["exp_avg"] for state in expected.training.engine.optimizer.state.values()]
    norm, expected_norm = (float(torch.nn.utils.get_total_norm(part)) for part in (moments, theirs))
    assert norm == pytest.approx(expected_norm, rel=1e-4)


def test_reference_gives_the_same_losses(plain):
    assert np.array(Run(REFERENCE).go(4)) == pytest.approx(np.array(plain), rel=1e-5)


def test_compiled_blocks_give_the_same_losses_and_names():
    expected, run = Run(align="none").go(2), Run(parse_speed("compile=on"), align="none")
    assert np.array(run.go(2)) == pytest.approx(np.array(expected), rel=1e-4)
    assert run.training.network.state_dict().keys() == build(MODEL, CODEC).state_dict().keys()


@pytest.mark.parametrize("how", COMPILE_OPTIONS)
def test_the_switch_of_the_compiler_reaches_every_block(how, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, *, dynamic, options: seen.append(options))
    Run(parse_speed(f"compile={how}"))
    assert seen == [COMPILE_OPTIONS[how]] * 2 * MODEL.dimensions.depth
    # Torch refuses names that it does not know.
    torch.compile(torch.nn.Identity(), options=COMPILE_OPTIONS[how])
    assert {*COMPILE_OPTIONS, "off", "auto"} == set(typing.get_args(typing.get_type_hints(Speed)["compile"]))


@pytest.mark.parametrize("align", [SraSettings(blocks=(1, 2)), DtsAsSettings(blocks=(1, 2))], ids=["sra", "dts-as"])
def test_one_compilation_without_breaks_serves_student_and_teacher(align):
    """What is compiled is the same here; only its translation to machine code, which takes longest, is left out."""
    torch._dynamo.reset()
    expected, run = Run(align=align).go(2), Run(align=align)
    counts = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    for network in (run.training.network, run.training.ema):
        for block in network.blocks:
            block.compile(backend=counts, fullgraph=True)
    assert np.array(run.go(2)) == pytest.approx(np.array(expected), rel=1e-5)
    assert counts.frame_count == 2  # with gradients and without, whatever the number of blocks


def test_early_reading_stops_before_the_optimizer():
    run = Run()
    run.go(2)
    before = run.state()
    run.spoilt = (2,)
    with pytest.raises(NonFiniteError, match="training step 3: "):
        run.go(1)
    assert all(torch.equal(a, b) for a, b in zip(before, run.state(), strict=True))


def test_late_reading_changes_nothing_from_the_bad_step_on():
    run = Run(parse_speed("optimizer=fused,losses=logged"))
    run.go(2)
    run.training.guard.read()
    before = run.state()
    run.spoilt = (2,)
    run.go(4)  # the steps after the bad one are finite, and skipped too
    assert all(torch.equal(a, b) for a, b in zip(before, run.state(), strict=True))
    with pytest.raises(NonFiniteError, match="training step 3: "):
        run.training.guard.read()


def test_with_a_scaler_the_loss_is_poisoned_after_a_bad_step():
    module = torch.nn.Linear(1, 1)
    speed = parse_speed("optimizer=fused,losses=logged").resolved("cpu")
    guard = NonFiniteGuard(module, TRAIN, speed, scaled=True)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def step(number, loss, norm):
        total = torch.tensor(loss)
        losses = [StepLosses(total=total, generation=total[None], alignment=None, weight=0.0)]
        guard.begin(number)
        assert not guard.must_skip(losses, torch.tensor(norm), optimizer)

    assert float(guard.poison(torch.tensor(2.0))) == 2.0
    step(0, 1.0, torch.inf)
    assert not guard.flag  # an overflowing gradient is skipped by the scaler, and counted
    assert [guard.read(), guard.read()] == [1, 0]
    step(1, torch.nan, 1.0)
    loss = torch.tensor(2.0, requires_grad=True)
    guard.poison(loss).backward()
    # The scaler looks at gradients: zeros would let the optimizer go on with its momentum.
    assert torch.isnan(loss.grad)


def test_a_saved_optimizer_continues_with_the_kernel_of_this_one():
    plain, fused = Run(), Run(parse_speed("optimizer=fused"))
    plain.go(2)
    optimizer = fused.training.engine.optimizer
    load_optimizer(optimizer, plain.training.engine.optimizer.state_dict())
    assert optimizer.param_groups[0]["fused"] is True
    assert float(next(iter(optimizer.state.values()))["step"]) == 2


def test_unknown_switches_are_refused():
    with pytest.raises(ConfigError, match=r"SRA_BENCH_SPEED: .* got 'complie' \(did you mean 'compile'"):
        parse_speed("complie=on")
    with pytest.raises(ConfigError, match=r"compile: expected one of auto, on, .*off, got 'yes'"):
        parse_speed("compile=yes")
    with pytest.raises(ConfigError, match="losses=logged: expected optimizer=fused, got plain"):
        parse_speed("losses=logged,optimizer=plain").resolved("cuda")
    with pytest.raises(ConfigError, match="--mode: expected fast or reference"):
        mode_of("slow", "cpu")


def test_every_device_has_every_switch_decided():
    for device in ("cpu", "cuda", "mps"):
        assert "auto" not in dataclasses.astuple(Speed().resolved(device))
    # An optimizer that cannot skip a step on the device has its losses read early.
    assert parse_speed("optimizer=plain").resolved("cuda").losses == "every-step"


def test_guidance_doubles_only_inside_its_interval():
    """As the authors' code does: ten steps with guidance up to t = 0.7."""
    network = build(MODEL, CODEC).eval()
    rows = []
    network.register_forward_pre_hook(lambda _m, inputs: rows.append(len(inputs[0])))
    config = SampleConfig(sampler="euler", steps=10, cfg=2.0, guidance_interval=(0.0, 0.7), precision="fp32")
    noise = Randoms(0, torch.arange(3)).normal("initial", (4, 8, 8))
    sample(network, config, MODEL, SamplerInputs(torch.arange(3), noise, lambda _: noise))
    assert rows == [3, 3, 3, 6, 6, 6, 6, 6, 6, 6]


def test_work_in_a_thread_keeps_the_order_and_its_errors():
    assert list(map_in_background(lambda n: n * n, range(5))) == [0, 1, 4, 9, 16]
    assert list(map_in_background(str, [])) == []
    seen = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(map_in_background(lambda n: 1 // n, [1, 0, 1]))


def test_overlapped_sampling_decodes_the_same():
    from sra.model.vae import load_codec

    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    decoder = Decoder(load_codec(CODEC), "contiguous")

    def decoded(part):
        with decoder.after(decoder.ready(part)):
            return decoder.decode(part)

    expected = [decoded(part) for part in z[:, None]]
    made = list(map_in_background(decoded, z[:, None]))
    assert all(torch.equal(a, b) for a, b in zip(expected, made, strict=True))
    last = Decoder(load_codec(CODEC), "channels-last")
    found = last.decode(z[:1])
    assert (found.int() - expected[0].int()).abs().max() <= 1
