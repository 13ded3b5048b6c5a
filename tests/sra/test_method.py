"""Networks, losses, samplers and training against numbers printed by the reference code."""

import dataclasses

import pytest
import torch

from sra.alignment.sra import Settings, weight_at
from sra.config import EmaConfig, SampleConfig, TrainConfig
from sra.ema import update_ema
from sra.flow import coefficients, interpolate, score_from_velocity
from sra.method import TrainingModule
from sra.network import build, initialise, position_encoding
from sra.samplers import mixed, sample, velocity_of, with_null
from sra.train import make_optimizer

LIMIT = 1e-6


@pytest.fixture
def network(sit, model, codec, helpers):
    network = build(model, codec, head=True)
    network.load_state_dict(helpers.state(sit, "model/"))
    return network.eval()


@pytest.fixture
def teacher(sit, model, codec, helpers):
    network = build(model, codec, head=True)
    network.load_state_dict(helpers.state(sit, "teacher/"))
    return network.eval()


class GoldenRandoms:
    """Gives the numbers that the reference code drew."""

    def __init__(self, given, prefix, null_label):
        self.t, self.noise = given[f"{prefix}/t"].float(), given[f"{prefix}/noise"].float()
        self.shift = (self.t - given[f"{prefix}/t_teacher"].float()) / 0.2 if f"{prefix}/t_teacher" in given else None
        self.kept = (given[f"{prefix}/labels_after_dropout"] != null_label).float()

    def uniform(self, name, shape=()):
        return {"t": self.t, "align.time": self.shift, "dropout": self.kept}[name]

    def normal(self, name, shape=()):
        assert name == "noise"
        return self.noise


def test_position_encoding(helpers):
    for name, expected in helpers.load("pos_embed.npz").items():
        width, grid = (int(part) for part in name.split("x"))
        assert helpers.error(position_encoding(width, grid), expected) < LIMIT


def test_state_dict_names_and_shapes(golden_config, network):
    import json
    from pathlib import Path

    listed = json.loads((Path(__file__).parents[1] / "golden" / "config.json").read_text())["sit_state_dict"]
    assert {n: tuple(s) for n, s in listed} == {n: tuple(t.shape) for n, t in network.state_dict().items()}


def test_forward(sit, network, golden_config, helpers):
    x, y, t = sit["forward/x"], sit["forward/y"], sit["forward/t"]
    m = golden_config["block_out_s"]
    with torch.no_grad():
        velocity, hidden = network(x, t, y, tap=m)
        null = network(x, t, torch.full_like(y, network.null_label))
        stopped = network.hidden(x, t, y, block=m)
    assert helpers.error(velocity, sit["forward/velocity"]) < LIMIT
    assert helpers.error(hidden, sit["forward/hidden_at_s"]) < LIMIT
    assert helpers.error(null, sit["forward/velocity_null"]) < LIMIT
    assert torch.equal(stopped, hidden)


DISTANCE = {"sml1": "smooth-l1", "l1": "l1", "l2": "l2", "cos": "cosine-tokens"}
CASES = [
    "sml1/uniform/linear",
    "sml1/uniform/cosine",
    "sml1/lognormal/linear",
    "sml1/lognormal/cosine",
    "l1/uniform/linear",
    "l2/uniform/linear",
    "cos/uniform/linear",
]


@pytest.mark.parametrize("case", CASES)
def test_sra_losses_and_gradients(case, sit, model, codec, golden_config, teacher, helpers):
    distance, _, path = case.split("/")
    align = Settings(blocks=(golden_config["block_out_s"], golden_config["block_out_t"]), distance=DISTANCE[distance])
    settings = dataclasses.replace(model, interpolant=path)
    module = TrainingModule(settings, codec, TrainConfig(steps=1, label_dropout=0.5), align)
    module.network.load_state_dict(helpers.state(sit, "model/"))
    prefix = f"sra_loss/{case}"
    randoms = GoldenRandoms(sit, prefix, model.classes)
    losses = module(sit["sra_loss/images"], sit["sra_loss/labels"], randoms, teacher)
    assert helpers.error(losses.generation, sit[f"{prefix}/gen_loss"]) < LIMIT
    assert helpers.error(losses.alignment, sit[f"{prefix}/align_loss"]) < LIMIT
    losses.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 1e9)
    assert helpers.error(norm, sit[f"{prefix}/total_grad_norm"]) < LIMIT
    for name, expected in helpers.state(sit, f"{prefix}/grad/").items():
        assert helpers.error(module.network.get_parameter(name).grad, expected) < LIMIT, name


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("mode", ["ode_euler", "ode_heun", "sde"])
@pytest.mark.parametrize("guidance", ["nocfg", "cfg", "cfg_interval"])
def test_samplers(path, mode, guidance, sit, model, network, golden_config, helpers):
    expected = sit.get(f"samplers/{path}/{mode}/{guidance}")
    if expected is None:
        assert (path, mode) in {("cosine", "ode_euler"), ("cosine", "ode_heun")}
        return
    interval = (golden_config["guidance_low"], golden_config["guidance_high"])
    config = SampleConfig(
        sampler={"ode_euler": "euler", "ode_heun": "heun", "sde": "euler-maruyama"}[mode],
        steps=golden_config["num_steps"],
        cfg=1.0 if guidance == "nocfg" else golden_config["cfg_scale"],
        guidance_interval=interval if guidance == "cfg_interval" else (0.0, 1.0),
    )
    settings = dataclasses.replace(model, interpolant=path)
    noise = sit["samplers/sde_noise"]
    found = sample(network, config, settings, sit["samplers/labels"], sit["samplers/latents"], lambda k: noise[k])
    assert helpers.error(found, expected) < LIMIT


def test_vanilla_sit_is_reversed_and_negated(model, codec, helpers):
    arrays = helpers.load("vanilla_sit.npz")
    vanilla = dataclasses.replace(model, convention="vanilla-sit")
    network = build(vanilla, codec)
    network.load_state_dict(helpers.state(arrays, "model/"))
    network.eval()
    x, y, t = (arrays[next(k for k in arrays if k.endswith(f"/{n}") or k == n)] for n in ("x", "y", "t_vanilla"))
    with torch.no_grad():
        raw = network(x, t, y)
    key = next(k for k in arrays if k.endswith("output_vanilla") and "cfg" not in k)
    assert helpers.error(raw[:, : x.shape[1]], arrays[key]) < LIMIT
    velocity = velocity_of(network, vanilla)
    key = next(k for k in arrays if k.endswith("velocity"))
    for i in range(len(t)):
        with torch.no_grad():
            found = velocity(x[i : i + 1].double(), t[i].double(), y[i : i + 1])
        assert helpers.error(found, arrays[key][i : i + 1]) < LIMIT


def test_four_steps_of_training(sit, model, codec, golden_config, helpers):
    config = TrainConfig(steps=4, lr=1e-3, label_dropout=0.5, ema=EmaConfig(decay=0.9))
    align = Settings(blocks=(golden_config["block_out_s"], golden_config["block_out_t"]))
    module = TrainingModule(model, codec, config, align)
    module.network.load_state_dict(helpers.state(sit, "model/"))
    ema = build(model, codec, head=True).eval().requires_grad_(False)
    ema.load_state_dict(module.network.state_dict())
    optimizer = make_optimizer(module, config)
    steps = sorted({k.split("/")[1] for k in sit if k.startswith("training/") and k.split("/")[1].isdigit()})
    assert len(steps) == 4
    for k, step in enumerate(steps):
        prefix = f"training/{step}"
        x = sit.get(f"{prefix}/images", sit.get("training/images", sit["sra_loss/images"]))
        y = sit.get(f"{prefix}/labels", sit.get("training/labels", sit["sra_loss/labels"]))
        losses = module(x, y, GoldenRandoms(sit, prefix, model.classes), ema)
        optimizer.zero_grad()
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        update_ema(ema, module.network, config.ema, k)
        assert helpers.error(losses.generation.mean(), sit[f"{prefix}/gen_loss"]) < LIMIT
        assert helpers.error(norm, sit[f"{prefix}/grad_norm"]) < 2 * LIMIT
    for kind, found in (("final_ema", ema), ("final_model", module.network)):
        for name, expected in helpers.state(sit, f"training/{kind}/").items():
            _compare(name, found.state_dict()[name], expected)


def _compare(name, found, expected):
    difference = (found - expected).abs()
    if name.endswith("qkv.bias"):
        # The key third has no gradient by symmetry; Adam amplifies its rounding.
        width = len(expected) // 3
        assert difference[width : 2 * width].max() < 1e-4, name
        difference = torch.cat([difference[:width], difference[2 * width :]])
    assert difference.max() < 1e-6, name


def test_head_does_not_change_the_networks_initialisation(model, codec):
    plain, headed = build(model, codec), build(model, codec, head=True)
    initialise(plain, 3)
    initialise(headed, 3)
    states = headed.state_dict()
    assert all(torch.equal(value, states[name]) for name, value in plain.state_dict().items())
    assert torch.count_nonzero(plain.final_layer.linear.weight) == 0


def test_baseline_and_sra_draw_the_same_numbers(model, codec):
    from sra.randoms import Randoms

    x, y = torch.randn(8, 4, 8, 8), torch.arange(8)
    config = TrainConfig(steps=1)
    losses = []
    for align in (None, Settings(blocks=(2, 3))):
        module = TrainingModule(model, codec, config, align)
        initialise(module.network, 0)
        losses.append(module(x, y, Randoms(0, torch.arange(8)), module.network).generation)
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_interpolant_ends_and_score_identity(path):
    x, noise = torch.randn(3, 4, 2, 2).double(), torch.randn(3, 4, 2, 2).double()
    start, _ = interpolate(path, x, noise, torch.zeros(3).double())
    end, _ = interpolate(path, x, noise, torch.ones(3).double())
    torch.testing.assert_close(start, x)
    torch.testing.assert_close(end, noise, atol=1e-12, rtol=1e-9)
    # For a known pair the score of p(x_t | x) is -noise / sigma.
    t = torch.tensor(0.3).double()
    alpha, sigma, d_alpha, d_sigma = coefficients(path, t)
    x_t, v = alpha * x + sigma * noise, d_alpha * x + d_sigma * noise
    torch.testing.assert_close(score_from_velocity(path, v, x_t, t), -noise / sigma)


def test_public_weight_schedule():
    settings = Settings(weight_schedule="public-code")
    assert weight_at(settings, 149, 256) == 0.2
    assert weight_at(settings, 1149, 256) == pytest.approx(0.02)
    assert weight_at(settings, 899, 512) == pytest.approx(0.02)
    assert weight_at(Settings(), 1149, 256) == 0.2


def test_vanilla_guidance_acts_on_three_channels(model, codec, golden_config, helpers):
    arrays = helpers.load("vanilla_sit.npz")
    vanilla = dataclasses.replace(model, convention="vanilla-sit")
    network = build(vanilla, codec).eval()
    network.load_state_dict(helpers.state(arrays, "model/"))
    x, y, t = arrays["forward/x"], arrays["forward/y"], arrays["forward/t_vanilla"]
    inputs, labels = with_null(x, y, network.null_label)
    with torch.no_grad():
        raw = network(inputs, torch.cat([t, t]), labels)[:, : x.shape[1]]
    found = mixed(raw, golden_config["cfg_scale"], 3)
    assert helpers.error(found, arrays["forward/output_cfg_vanilla"]) < LIMIT
