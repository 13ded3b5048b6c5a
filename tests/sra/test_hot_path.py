"""The hot path of training and sampling, by counts that need no GPU: what would slow one down fails here."""

import collections
import copy
import dataclasses
import threading
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo.testing
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sra.config import (
    CodecConfig,
    DispersiveSettings,
    DtsAsSettings,
    EmaConfig,
    LayerSyncSettings,
    ModelConfig,
    SampleConfig,
    SelfFlowSettings,
    Size,
    Sra2Settings,
    SraSettings,
    TrainConfig,
    TrainJob,
)
from sra.data.latents import PackedLatents
from sra.model.transformer import build, compile_blocks, fill_zeros, initialise
from sra.perf.workloads import NoCodec, TorchEngine
from sra.runtime import random_streams
from sra.runtime.device import attention_kernel, autocast, use_attention
from sra.runtime.random_streams import Randoms, Together
from sra.runtime.speed import parse_speed
from sra.sampling.pipeline import Pipeline
from sra.sampling.samplers import SamplerInputs, sample
from sra.training import ema
from sra.training.batches import Batches
from sra.training.ema import update_ema
from sra.training.logbook import mean_losses
from sra.training.step import TrainState

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=3, width=16, heads=2), resolution=32, classes=10, convention="sra")
ALIGNMENTS = {
    "none": None,
    "sra": SraSettings(blocks=(1, 2)),
    "sra2": Sra2Settings(block=1, mlp_width=8, mlp_activation="silu"),
    "self-flow": SelfFlowSettings(blocks=(1, 2)),
    "self-flow, min-and-clean": SelfFlowSettings(blocks=(1, 2), teacher="min-and-clean"),
    "dts-as": DtsAsSettings(blocks=(1, 2)),
    "layersync": LayerSyncSettings(blocks=(1, 2)),
    "dispersive": DispersiveSettings(block=3, local_batch=2),
}
ON_A_GPU = "optimizer=fused,losses=logged"
"""Switches of a GPU that a CPU can take, beside compilation."""


def training(align, precision="fp32", speed=ON_A_GPU, device="cpu"):
    """State of a run that computes as it would on a GPU."""
    train = TrainConfig(steps=9, global_batch=4, precision=precision, ema=EmaConfig(decay=0.9))
    resolved = align and align.resolved(MODEL, CODEC)
    job = TrainJob(seed=0, codec=CODEC, model=MODEL, train=train, align=resolved)
    engine = TorchEngine(precision, torch.device(device), bucket_views=True)
    return TrainState(job, engine, parse_speed(speed).resolved("cpu"))


def step(state, number, count=4):
    randoms = Randoms(0, torch.arange(number * count, (number + 1) * count))
    return state.update(number, 0.0, [(randoms.normal("x", (4, 8, 8)), torch.arange(count), randoms)])


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_tokens_are_row_by_row_in_all_blocks(align):
    """Left in a convolution's layout, every LayerNorm would copy its input, and every residual sum transpose."""
    state, seen = training(ALIGNMENTS[align]), []
    for network in (state.network, state.ema):
        for block in network.blocks:
            block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    step(state, 0)
    assert len(seen) >= 3
    assert all(seen)


class NoHostReads(TorchDispatchMode):
    """Raises where the host would wait for a GPU: `.item()`, `float()`, `bool()`, shapes that depend on values."""

    WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.name().split(".")[0] not in self.WAITING, function.name()
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("align", ALIGNMENTS)
def test_a_training_step_reads_nothing_from_the_device_and_copies_nothing_to_it(align, precision):
    state = training(ALIGNMENTS[align], precision)
    step(state, 0)
    with NoHostReads(), pytest.MonkeyPatch.context() as patch:
        for owner, names in (
            (torch.Tensor, ("cpu", "numpy", "tolist", "new_tensor")),
            (torch, ("tensor", "as_tensor")),
        ):
            for name in names:  # either way, a copy waits for the queue
                patch.setattr(owner, name, None)
        step(state, 1)


class OneReduction:
    """An accelerator that averages over processes once."""

    def __init__(self):
        self.calls = 0

    def reduce(self, values, _):
        self.calls += 1
        return values


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_a_logged_step_waits_once_for_all_its_losses_and_norms(align, monkeypatch):
    result, engine, reads = step(training(ALIGNMENTS[align]), 0), OneReduction(), []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append(tensor) or tolist(tensor))
    with NoHostReads():
        means = mean_losses(result.losses, engine)
    assert (engine.calls, len(reads)) == (1, 1)
    norms = {"none": 0, "sra2": 1, "dispersive": 1}.get(align, 2)
    assert len(reads[0]) == 2 + (align != "none") + norms
    assert [name in means for name in ("student_norm", "teacher_norm")] == [norms > 0, norms > 1]


def test_the_mode_sees_a_read():
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoHostReads():
        float(torch.ones(()))


class CountOperations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.name().split(".")[0].removeprefix("aten::")] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("decay", [0.6, 0.99, 0.9999])
def test_the_average_is_one_call_for_all_parameters_and_equal_to_the_bit(decay):
    mine, theirs = build(MODEL, CODEC), build(MODEL, CODEC)
    pairs = zip(mine.parameters(), theirs.parameters(), strict=True)
    expected = [torch.lerp(a, b, torch.tensor(1 - decay)) for a, b in pairs]
    before = copy.deepcopy(mine)
    with CountOperations() as operations, NoHostReads():
        update_ema(mine, theirs, EmaConfig(decay=decay), 0, hold=torch.tensor(True))
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), before.parameters(), strict=True))
    update_ema(mine, theirs, EmaConfig(decay=decay), 0, hold=torch.tensor(False))
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), expected, strict=True))
    assert operations.counts["_fused_sgd_"] == 1
    assert operations.counts.total() < 10


TEACHERLESS = ("none", "sra2", "layersync", "dispersive")
COMPILATIONS = {name: 1 if name in TEACHERLESS else 2 for name in ALIGNMENTS}
"""Of the block: with gradients, and the teacher's without."""


def counted_compilations(monkeypatch):
    """Counter of compilations, which stop before machine code; a break of the graph raises."""
    torch._dynamo.reset()
    counts = torch._dynamo.testing.CompileCounter()
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda m, **options: compile_module(m, backend=counts, fullgraph=True, **options)
    )
    return counts


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_compilations_of_training(align, monkeypatch):
    counts = counted_compilations(monkeypatch)
    state = training(ALIGNMENTS[align], speed=f"{ON_A_GPU},compile=off")
    for network in (state.network, state.ema):
        compile_blocks(network, fixed_shapes=True)
    for number in range(2):
        step(state, number)
    assert counts.frame_count == COMPILATIONS[align]


@pytest.mark.parametrize("align", ["sra", "dts-as"])
def test_compiled_training_casts_each_weight_once(align):
    """The backward pass takes the forward's half-precision copies, and casts none again; nor does the teacher."""
    torch._dynamo.reset()
    state, graphs = training(ALIGNMENTS[align], "bf16"), []

    def keep(module, _inputs):
        casts = [node.meta["val"] for node in module.graph.nodes if node.kwargs.get("dtype") is torch.bfloat16]
        graphs.append(collections.Counter(tuple(sorted(cast.shape)) for cast in casts))
        return make_boxed_func(module.forward)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep, partition_fn=min_cut_rematerialization_partition)
    for block in (*state.network.blocks, *state.ema.blocks):
        block.compile(backend=backend, fullgraph=True, dynamic=False)
    step(state, 0)
    weights = collections.Counter(tuple(sorted(p.shape)) for p in state.network.blocks[0].parameters())
    casts = [{shape: found[shape] for shape in weights} for found in graphs]
    assert casts.count(weights) == COMPILATIONS[align]
    assert casts.count(dict.fromkeys(weights, 0)) == len(casts) - COMPILATIONS[align] == 1  # the backward pass


def sampled(network, sampler, images, model=MODEL, device="cpu"):
    interval = (0.0, 1.0) if sampler == "ddpm" else (0.0, 0.6)
    config = SampleConfig(sampler=sampler, steps=3, cfg=2.0, guidance_interval=interval, precision="fp32")
    indices = torch.arange(images, device=device)
    randoms = Randoms(0, indices)
    noise = randoms.normal("initial", (4, 8, 8))
    return sample(network, config, model, SamplerInputs(indices % 10, noise, lambda _: noise))


def test_compilations_of_sampling(monkeypatch):
    """Whole and last batches, with and without guidance: the second shape is compiled for all."""
    counts = counted_compilations(monkeypatch)
    found = []
    for width in (16, 16, 24):
        model = dataclasses.replace(MODEL, size=Size(depth=2, width=width, heads=2))
        network = build(model, CODEC).eval()
        compile_blocks(network, fixed_shapes=False)
        for images in (64, 58):
            sampled(network, "euler", images)
        found.append(counts.frame_count)
    assert found == [2, 2, 3]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_samples_cast_their_weights_once_and_are_equal_to_the_bit(precision):
    network = build(MODEL, CODEC).eval()
    initialise(network, 0)
    fill_zeros(network, 0)
    config = SampleConfig(sampler="euler", steps=3, cfg=2.0, precision=precision)
    noise = Randoms(0, torch.arange(2)).normal("initial", (4, 8, 8))
    inputs = SamplerInputs(torch.arange(2), noise, lambda _: noise)
    with autocast(precision, "cpu"):
        expected = sample(network, config, MODEL, inputs)
    pipeline = Pipeline(network, MODEL, config, NoCodec(torch.device("cpu")), parse_speed("").resolved("cpu"))
    with CountOperations() as operations:
        found, _, _ = pipeline.sample(inputs)
    assert torch.equal(found, expected)
    evaluations, linears = 3, 5
    casts = operations.counts["_to_copy"] / evaluations
    assert casts < 2 * linears * len(network.blocks)  # a weight and a bias of each


def test_more_widths_are_compiled_than_torch_would():
    """Eight by default; a process may sample from networks of more widths."""
    compile_blocks(build(MODEL, CODEC), fixed_shapes=True)
    assert torch._dynamo.config.recompile_limit >= 64


@pytest.fixture
def pretended_gpu(monkeypatch):
    """Tensors without values on a GPU that is not there: operations check devices and data types, and compute nothing.

    A sampler reads its times, which are on the host: each is given as 0.5.
    """
    with FakeTensorMode() as mode:
        deepcopy, known = copy.deepcopy, {id(mode): mode}
        monkeypatch.setattr(copy, "deepcopy", lambda x, memo=None: deepcopy(x, dict(known) if memo is None else memo))
        monkeypatch.setattr(torch.Tensor, "__float__", lambda _: 0.5)
        monkeypatch.setattr(torch.nn.Module, "to", moved)
        random_streams._constants.cache_clear()
        yield torch.device("cuda", 0)
    random_streams._constants.cache_clear()


def moved(module, device):
    """As `Module.to`, which cannot exchange tensors without values."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            own = torch.nn.Parameter(parameter.detach().to(device), requires_grad=parameter.requires_grad)
            part.register_parameter(name, own)
        for name, buffer in part.named_buffers(recurse=False):
            part.register_buffer(name, buffer.to(device))
    return module


@pytest.mark.parametrize("align", ["sra", "self-flow, min-and-clean", "dts-as", "layersync", "dispersive"])
def test_a_training_step_keeps_to_its_device(align, pretended_gpu, monkeypatch):
    state = training(ALIGNMENTS[align], device=pretended_gpu)
    for parameter in state.module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    # Autograd runs in a thread of the device.
    monkeypatch.setattr(torch.autograd, "backward", lambda loss: None)
    monkeypatch.setattr(state.optimizer, "zero_grad", lambda: None)

    def average(mine, theirs, *_, found_inf, **__):  # has no form without values
        assert {tensor.device for tensor in (*mine, *theirs, found_inf)} == {pretended_gpu}

    monkeypatch.setattr(ema, "sgd", average)
    positions = torch.arange(4, device=pretended_gpu)
    randoms = Randoms(0, positions, Together())
    for number in range(2):
        x = randoms.normal("x", (4, 8, 8))
        result = state.update(number, 0.0, [(x, positions, randoms)])
    assert result.norm.device == pretended_gpu


@pytest.mark.parametrize("sampler", ["euler", "heun", "euler-maruyama", "ddpm"])
def test_a_sampler_keeps_to_its_device(sampler, pretended_gpu):
    model = dataclasses.replace(MODEL, family="dit", convention="vanilla-dit") if sampler == "ddpm" else MODEL
    network = build(model, CODEC).eval().to(pretended_gpu)
    assert sampled(network, sampler, 4, model, device=pretended_gpu).device == pretended_gpu


def test_batches_are_pinned_by_the_threads_that_read_them(monkeypatch, small, digit_latents):
    """Pinning takes milliseconds, in which the step would wait."""
    where = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: where.append(threading.current_thread()) or tensor)
    engine = SimpleNamespace(device=torch.device("cuda"), num_processes=1, process_index=0)
    batches = Batches(small.job, PackedLatents(digit_latents), engine, parse_speed("").resolved("cuda"))
    batches._prefetcher.get(0)
    assert len(where) >= 2
    assert threading.current_thread() not in where


def test_the_switch_of_the_attention_kernel_is_obeyed():
    cpu = torch.device("cpu")
    try:
        use_attention("torch")
        assert attention_kernel(cpu, "bf16", head=64) == "flashforcpu"
        use_attention("math")
        assert attention_kernel(cpu, "fp32") == "math"
    finally:
        for name in ("flash", "mem_efficient", "cudnn"):
            getattr(torch.backends.cuda, f"enable_{name}_sdp")(True)
