"""Golden numbers, all of them: parity holds on `tests/golden`, and fails by name where one number is wrong."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sra.common.errors import DataError
from sra.config import SampleConfig, Size, SraSettings, TrainConfig
from sra.model.transformer import build
from sra.model.weights import network_of
from sra.parity import wide
from sra.parity.__main__ import main
from sra.parity.checks import Networks
from sra.parity.compare import ROUNDING, Amplification, Mode, Report, exact, limit_of, output, solved, table, trained
from sra.parity.folder import CHECKS, SIBLINGS, check_folder
from sra.parity.golden import Arrays, Scope, open_golden
from sra.sampling.samplers import SamplerInputs, sample

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = Mode(torch.device("cpu"))
NPZ = [name for name in CHECKS if name.endswith(".npz")] + [f"siblings/{name}" for name in SIBLINGS]


def check(folder):
    return check_folder(open_golden(folder), CPU)


@pytest.fixture(scope="module")
def report():
    return check(GOLDEN)


@pytest.fixture
def folder(tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(GOLDEN, tmp_path / "golden", ignore=shutil.ignore_patterns("adm"))
    return tmp_path / "golden"


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def change(path, edit):
    arrays = load(path)
    edit(arrays)
    np.savez(path, **arrays)


def failed(report):
    return [item.item for item in report.failed]


def test_every_golden_number_holds_and_nothing_is_skipped(report):
    assert failed(report) == []
    assert report.absent == []
    names = [item.item for item in report.items]
    assert len(names) == len(set(names))


def spoil(array, rng):
    """Change one element by 0.1 %, or a whole number by 1: not one that vanishes beside the others."""
    flat = array.reshape(-1)
    least = 0.01 * np.sqrt(np.mean(flat.astype(float) ** 2))
    place = rng.choice(np.flatnonzero(np.abs(flat.astype(float)) >= least))
    flat[place] = flat[place] * 1.001 if array.dtype.kind == "f" else flat[place] ^ 1
    return array


def spoil_weights(key, array, rng):
    """As `spoil`; Adam leaves the key third of a qkv bias to rounding."""
    if key.startswith("training/final_") and key.endswith("qkv.bias"):
        return np.concatenate([spoil(array[: len(array) // 3], rng), array[len(array) // 3 :]])
    return spoil(array, rng)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_wrong_element_in_every_array_fails_every_item(seed, report, folder):
    """All expected numbers are spoilt at once: each item compares its own."""
    rng, wrong = np.random.default_rng(seed), set()
    for name in NPZ:
        stem = f"{name[:-4]}/"
        expected = {item.item.removeprefix(stem) for item in report.items if item.item.startswith(stem)}
        # Dropped labels are an input too: a wrong one stops its whole case.
        expected = {key for key in expected if not key.endswith(("labels_after_dropout", "pos_embed"))}
        change(folder / name, lambda a, e=expected: a.update({k: spoil_weights(k, a[k], rng) for k in sorted(e)}))
        wrong |= {f"{name[:-4]}/{key}" for key in expected}
    assert set(failed(check(folder))) == wrong


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sit.npz", "sra_loss/cos/uniform/linear/align_loss"),
        ("sit.npz", "training/final_ema/pos_embed"),
        ("sit.npz", "training/0/labels_after_dropout"),
        ("dit.npz", "sampler/betas_250"),
        ("vanilla_sit.npz", "model/pos_embed"),
        ("center_crop.npz", "3/crop32"),
        ("siblings/layersync.npz", "align_loss"),
        ("siblings/dispersive.npz", "paper/align_loss"),
        ("siblings/self_flow.npz", "output_tokens"),
        ("siblings/self_flow.npz", "sampler/final"),
        ("siblings/dopri5.npz", "cfg1.5/final"),
        ("siblings/dopri5.npz", "grid2/evaluations"),
    ],
)
def test_one_wrong_number_is_named(name, key, folder):
    change(folder / name, lambda a: spoil(a[key], np.random.default_rng(3)))
    assert f"{name[:-4]}/{key}" in failed(check(folder))


def test_a_solver_whose_steps_rounding_decides(folder):
    """Weights 1.4 times as large, samples of other kernels: up to 9e-5 away; a wrong element is still named."""
    path, places = folder / "siblings/dopri5.npz", ("grid50", "cfg1.5")
    change(path, lambda a: a.update({k: 1.4 * v for k, v in a.items() if "model/" in k and "pos_embed" not in k}))
    golden, arrays = open_golden(folder / "siblings"), load(path)
    model = golden.config.model("sit", "vanilla-sit")
    state = {k.removeprefix("model/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("model/")}
    network = network_of(state, model, golden.config.codec, "model").eval()
    inputs = SamplerInputs(torch.from_numpy(arrays["y"]), torch.from_numpy(arrays["initial"]), None)
    for place in places:
        config = SampleConfig(sampler="dopri5", cfg=1.5 if place == "cfg1.5" else 1.0, cfg_channels=3)
        with sdpa_kernel(SDPBackend.MATH):
            arrays[f"{place}/final"] = sample(network, config, model, inputs).numpy()
    np.savez(path, **{key: value for key, value in arrays.items() if not key.startswith("grid2/")})
    shutil.copytree(folder / "siblings", folder / "other", ignore=lambda _, names: {*SIBLINGS} & {*names} - {path.name})
    assert failed(check(folder / "other")) == []
    change(path, lambda a: [spoil(a[f"{place}/final"], np.random.default_rng(5)) for place in places])
    shutil.copy(path, folder / "other")
    assert {*failed(check(folder / "other"))} == {f"dopri5/{place}/final" for place in places}


def test_a_solver_may_differ_only_as_its_reruns_do():
    torch.manual_seed(0)
    found, ways = torch.randn(500).double(), 1e-4 * torch.randn(2, 500).double()
    reruns = [found + ways.T @ torch.randn(2).double() + 1e-7 * torch.randn(500) for _ in range(4)]
    judge, apart = solved(lambda: reruns), ways[0] - 2 * ways[1]
    assert judge(found, found + apart, 1e-6).ok
    assert not judge(found, found + 100 * apart, 1e-6).ok
    assert not judge(found, found + apart[torch.randperm(500)], 1e-6).ok
    wrong = found + apart
    wrong[17] *= 1.001
    assert "element [17]" in judge(found, wrong, 1e-6).note
    assert not solved(list)(found, found + apart, 1e-6).ok
    assert not solved(lambda: [found, found])(found, found + apart, 1e-6).ok


def test_wrong_weights_in_the_published_file_are_named(folder):
    document = torch.load(folder / "published_format.pt", weights_only=False)
    document["ema"]["blocks.1.attn.proj.bias"][3] *= 1.001
    torch.save(document, folder / "published_format.pt")
    # Both states of the file are the same tensors.
    assert failed(check(folder)) == [f"published_format/{w}/blocks.1.attn.proj.bias" for w in ("model", "ema")]


def test_a_wrong_shape_in_the_lists_is_named(folder):
    document = json.loads((folder / "config.json").read_text())
    document["dit_state_dict"][3][1][0] += 1
    document["sit_state_dict"].pop()
    (folder / "config.json").write_text(json.dumps(document))
    assert failed(check(folder)) == [
        "config/sit_state_dict/final_layer.adaLN_modulation.1.bias",
        f"config/dit_state_dict/{document['dit_state_dict'][3][0]}",
    ]


INPUTS = [
    ("sit.npz", "forward/x", "sit/forward/velocity"),
    ("sit.npz", "sra_loss/sml1/lognormal/cosine/t", "sit/sra_loss/sml1/lognormal/cosine/gen_loss"),
    ("sit.npz", "sra_loss/l1/uniform/linear/t_teacher", "sit/sra_loss/l1/uniform/linear/align_loss"),
    ("sit.npz", "samplers/sde_noise", "sit/samplers/linear/sde/nocfg"),
    ("sit.npz", "dual_timestep/full/self_flow_clean/labels", "sit/dual_timestep/full/self_flow_clean/align_loss"),
    ("sit.npz", "training/2/t", "sit/training/2/gen_loss"),
    ("dit.npz", "sra_loss/t_teacher", "dit/sra_loss/align_loss"),
    ("dit.npz", "sampler/latents", "dit/sampler/cfg"),
    ("siblings/layersync.npz", "weight", "siblings/layersync/total_grad_norm"),
    ("siblings/layersync.npz", "t", "siblings/layersync/velocity"),
    ("siblings/dispersive.npz", "pytorch/weight", "siblings/dispersive/pytorch/total_grad_norm"),
    ("siblings/dispersive.npz", "paper/tau", "siblings/dispersive/paper/align_loss"),
    ("siblings/self_flow.npz", "t_tokens", "siblings/self_flow/output_tokens"),
    ("siblings/self_flow.npz", "sampler/noise", "siblings/self_flow/sampler/final"),
    ("siblings/dopri5.npz", "initial", "siblings/dopri5/grid2/final"),
]


def test_wrong_inputs_show_in_what_is_computed_of_them(folder):
    rng = np.random.default_rng(0)
    for name, key, _ in INPUTS:
        change(folder / name, lambda a, k=key: spoil(a[k], rng))
    assert {item for _, _, item in INPUTS} <= set(failed(check(folder)))


def test_unknown_keys_and_files_fail_and_absent_ones_are_listed(folder):
    def edit(arrays):
        arrays["forward/velocity_of_light"] = arrays.pop("forward/velocity")
        arrays["sra_loss/l3/uniform/linear/gen_loss"] = arrays["sra_loss/l2/uniform/linear/gen_loss"]
        del arrays["training/1/noise"]

    change(folder / "sit.npz", edit)
    (folder / "dit.npz").unlink()
    (folder / "extra.npz").write_bytes(b"")
    found = check(folder)
    notes = {item.item: item.note for item in found.failed}
    assert notes == {
        "sit/forward/velocity_of_light": "expected a known key or an input of some check, got neither",
        "sit/sra_loss/l3/uniform/linear": "key: expected one of sml1, l1, l2, cos, got 'l3' (did you mean 'l2'?)",
        "sit/training": "training/1/noise: missing",
        "extra.npz": "unknown file",
    }
    assert found.absent == ["sit/forward/velocity", "dit.npz"]


def test_inputs_that_do_not_fit_the_configuration_fail(folder):
    def edit(arrays):
        arrays["forward/y"][0] = 11
        arrays["training/2/noise"] = arrays["training/2/noise"][:5]
        arrays["samplers/latents"] = arrays["samplers/latents"][..., :4]
        arrays["dual_timestep/full/sra_masked/group"][2] = 0
        del arrays["teacher/blocks.0.attn.qkv.bias"]

    change(folder / "sit.npz", edit)
    notes = {item.item: item.note for item in check(folder).failed}
    assert notes["sit/forward"].startswith("y: expected labels from 0 to 10")
    assert "latents: expected shape (6, 4, 8, 8), got (6, 4, 8, 4)" in notes["sit/samplers/linear/sde"]
    assert "noise: expected shape (6, 4, 8, 8), got (5, 4, 8, 8)" in notes["sit/training"]
    assert "missing: blocks.0.attn.qkv.bias" in notes["sit/sra_loss"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: shutil.rmtree(f), "expected a golden folder"),
        (lambda f: (f / "config.json").write_text("{}"), r"config\.json: expected a key 'config'"),
        (lambda f: (f / "config.json").write_text("[1]"), r"config\.json: "),
        (lambda f: (f / "sit.npz").write_bytes(b"PK no"), r"sit\.npz: expected arrays"),
    ],
)
def test_a_folder_that_is_none_is_refused(edit, message, folder):
    edit(folder)
    with pytest.raises(DataError, match=message):
        check(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_heads": 5}, "width: .*32"), ({"block_out_t": 5}, "block_out_t: .*1 to 4.*5")],
)
def test_a_configuration_that_cannot_be_is_refused(change, message, folder):
    document = json.loads((folder / "config.json").read_text())
    document["config"].update(change)
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        open_golden(folder)


def test_the_command_prints_items_and_exits_with_1_on_failure(folder, capsys):
    for name in ("sit.npz", "vanilla_sit.npz", "published_format.pt"):
        (folder / name).unlink()
    main([str(folder)])
    assert "items on cpu, fp32: all hold" in capsys.readouterr().out
    change(folder / "dit.npz", lambda a: a["sampler/cfg"].__imul__(1.001))
    with pytest.raises(SystemExit) as stop:
        main([str(folder), "--json"])
    assert stop.value.code == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    assert document["absent"] == ["published_format.pt", "sit.npz", "vanilla_sit.npz"]
    wrong = [item for item in document["items"] if not item["ok"]]
    assert [item["item"] for item in wrong] == ["dit/sampler/cfg"]
    assert wrong[0]["error"] == pytest.approx(1e-3, rel=1e-2)


# -- another configuration: no reference made its numbers, so it shows only that the configuration is obeyed --------

OTHER = {
    "depth": 3,
    "hidden_size": 24,
    "num_heads": 2,
    "patch_size": 4,
    "input_size": 16,
    "in_channels": 3,
    "num_classes": 7,
    "block_out_s": 1,
    "block_out_t": 3,
    "t_max": 0.35,
    "cfg_scale": 2.5,
    "guidance_low": 0.2,
    "guidance_high": 0.6,
    "num_steps": 5,
    "dit_respacing": 7,
}
COUNT = 4


def latents(*lead):
    return torch.randn(*lead, OTHER["in_channels"], OTHER["input_size"], OTHER["input_size"]).numpy()


def other_input(key, golden):
    """An input of the golden folder in the other configuration's shape."""
    name, steps = key.split("/")[-1], OTHER["num_steps"]
    if name == "steps":
        return np.int64(OTHER["dit_respacing"] + 1)
    if golden.ndim == 0 or name == "blocks":
        return golden.clip(max=OTHER["depth"])
    tokens = (OTHER["input_size"] // OTHER["patch_size"]) ** 2
    if name == "t_tokens":
        return np.random.rand(COUNT, tokens).astype(np.float32)
    if name == "group":
        return np.stack([np.random.permutation(np.arange(tokens) >= tokens // 4).astype(int) for _ in range(COUNT)])
    if name in ("y", "labels", "labels_after_dropout"):
        return np.arange(COUNT) % OTHER["num_classes"]
    if name in ("t", "t_teacher", "t_vanilla"):
        t = np.linspace(0.5, 0.9, COUNT) - (0.1 if name == "t_teacher" else 0)
        if golden.dtype.kind == "i":
            return (t * 1000).astype(int)
        return np.broadcast_to(t, (*golden.shape[:-1], COUNT)).astype(np.float32)
    lead = {"sde_noise": (steps - 1, COUNT), "noise_cfg": (OTHER["dit_respacing"], 2 * COUNT)}
    if key == "sampler/noise":
        return latents(OTHER["dit_respacing"], COUNT)
    return latents(*lead.get(name, (COUNT,)))


def other_file(name, golden, inputs):
    family = "dit" if name == "dit.npz" else "sit"
    vanilla = name in ("vanilla_sit.npz", "siblings/self_flow.npz", "siblings/dopri5.npz")
    convention = "vanilla-sit" if vanilla else "sra"
    arrays, config = {}, golden.config
    for prefix in {key.split("/")[0] for key in inputs} & {"model", "teacher"}:
        head = convention == "sra" and not name.startswith("siblings/")
        network = build(config.model(family, convention), config.codec, head=head)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        arrays |= {f"{prefix}/{k}": v.detach().numpy() for k, v in network.state_dict().items()}
    if name == "siblings/self_flow.npz":
        arrays["model/x_embedder.proj.weight"] = arrays["model/x_embedder.proj.weight"].reshape(
            OTHER["hidden_size"], -1
        )
        arrays["model/projector.linear1.bias"] = np.zeros(2 * OTHER["hidden_size"], np.float32)
    rest = {k: v for k, v in inputs.items() if not k.startswith(("model/", "teacher/"))}
    return arrays | {key: other_input(key, value) for key, value in rest.items()}


@pytest.fixture(scope="module")
def other(tmp_path_factory, report):
    """A folder of another configuration, whose expected numbers this implementation computed itself."""
    place = tmp_path_factory.mktemp("other")
    (place / "config.json").write_text(json.dumps({"config": OTHER}))
    (place / "siblings").mkdir()
    network = ("depth", "hidden_size", "num_heads", "patch_size", "input_size", "in_channels", "num_classes")
    (place / "siblings" / "config.json").write_text(json.dumps({"config": {key: OTHER[key] for key in network}}))
    torch.manual_seed(0)
    np.random.seed(0)
    golden = open_golden(place)
    names = {item.item for item in report.items if not item.item.endswith(("labels_after_dropout", "pos_embed"))}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Report, "compare", lambda self, name, value, *_: found.update({name: value.detach().numpy()}))
        for name in ("sit.npz", "dit.npz", "vanilla_sit.npz", *(f"siblings/{name}" for name in SIBLINGS)):
            arrays = load(GOLDEN / name)
            stem = name[:-4]
            inputs = {k: v for k, v in arrays.items() if f"{stem}/{k}" not in names}
            made = other_file(name, golden, {k: v for k, v in inputs.items() if not k.endswith("final_ema/pos_embed")})
            wanted = {k: np.zeros(()) for k in arrays if f"{stem}/{k}" in names and "blocks.3" not in k}
            np.savez(place / name, **made, **wanted)
            check(place)
            results = {k: found[f"{Path(stem).name}/{k}"] for k in wanted}
            np.savez(place / name, **made, **results)
    return place


def test_another_configuration_is_obeyed(other):
    found = check(other)
    assert failed(found) == []
    assert set(found.absent) == CHECKS.keys() - {p.name for p in other.iterdir()}


@pytest.mark.parametrize(
    ("key", "value", "item"),
    [
        ("block_out_s", 2, "sit/forward/hidden_at_s"),
        ("block_out_t", 2, "dit/sra_loss/align_loss"),
        ("t_max", 0.05, "sit/dual_timestep/full/sra_masked/align_loss"),
        ("cfg_scale", 2.4, "vanilla_sit/forward/output_cfg_vanilla"),
        ("guidance_low", 0.5, "sit/samplers/linear/sde/cfg_interval"),
        ("guidance_high", 0.8, "sit/samplers/linear/ode_euler/cfg_interval"),
        ("num_steps", 6, "sit/samplers/linear/ode_heun/nocfg"),
        ("dit_respacing", 6, "dit/sampler/betas"),
        ("num_heads", 4, "sit/forward/velocity"),
        ("num_classes", 8, "sit/forward"),
    ],
)
def test_every_setting_reaches_its_numbers(key, value, item, other, tmp_path):
    for path in other.glob("*.npz"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").write_text(json.dumps({"config": OTHER | {key: value}}))
    assert item in failed(check(tmp_path))


# -- tolerances -----------------------------------------------------------------------------------------------------


def test_limits_grow_with_the_rounding_of_the_mode():
    limits = [limit_of("cpu", precision, compiled=False) for precision in ROUNDING]
    assert limits[0] == 1e-6
    assert limits == sorted(limits)
    assert limit_of("cuda", "fp32", compiled=False) == limit_of("cpu", "fp32", compiled=True) > 1e-6


def test_half_precision_can_fail_whatever_the_kernels():
    """An error of a hundredth in fp16 and TF32, of a fiftieth in bf16, is more than their rounding."""
    for precision, error in (("tf32", 1e-2), ("fp16", 1e-2), ("bf16", 2e-2)):
        assert limit_of("cuda", precision, compiled=True) < error


def test_a_number_changed_by_one_percent_is_named_in_half_precision(report, folder):
    wrong = set()

    def edit(arrays):
        for key in [key for key in arrays if f"dit/{key}" in {item.item for item in report.items}]:
            if arrays[key].dtype.kind == "f" and not key.endswith("pos_embed"):
                largest = np.abs(arrays[key]).argmax()
                arrays[key].reshape(-1)[largest] *= 1.01
                wrong.add(f"dit/{key}")

    change(folder / "dit.npz", edit)
    for path in folder.glob("*.npz"):
        if path.name != "dit.npz":
            path.unlink()
    (folder / "published_format.pt").unlink()
    found = check_folder(open_golden(folder), Mode(torch.device("cpu"), "bf16"))
    assert set(failed(found)) == wrong
    assert any(item.note.startswith("fp32: element") for item in found.failed)


@pytest.mark.parametrize("attention_error", [0, 0.1])
def test_wide_networks_show_a_wrong_kernel_of_their_heads(attention_error, monkeypatch):
    monkeypatch.setattr(wide, "WIDTHS", (Size(depth=2, width=144, heads=2),))
    monkeypatch.setattr(wide, "RESOLUTION", 64)
    attention = torch.nn.functional.scaled_dot_product_attention

    def wrong(q, k, v):
        return attention(q, k, v) * (1 + attention_error * (q.shape[-1] == 72 and q.dtype == torch.bfloat16))

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", wrong)
    mode = Mode(torch.device("cpu"), "bf16")
    found = Report(mode.limit)
    wide.check_wide(mode, found)
    assert {"wide/144x2/velocity", "wide/144x2/alignment"} <= {item.item for item in found.items}
    assert bool(failed(found)) == bool(attention_error)


def test_output_sees_one_element_that_the_norm_hides():
    expected = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    found = expected * (1 + 1e-7 * torch.randn(100_000, generator=torch.Generator().manual_seed(1)))
    assert output(found, expected, 1e-6).ok
    place = random.Random(0).randrange(100_000)
    wrong = expected.clone()
    wrong[place] += 5e-6
    assert (wrong - expected).norm() / expected.norm() < 1e-6
    verdict = output(wrong, expected, 1e-6)
    assert not verdict.ok
    assert f"element [{place}]" in verdict.note


@pytest.mark.parametrize("judge", [output, table, exact])
def test_what_is_no_number_or_of_another_shape_fails(judge):
    expected = torch.ones(3)
    assert judge(expected, expected, 1e-6).ok
    assert not judge(torch.tensor([1.0, float("nan"), 1.0]), expected, 1e-6).ok
    assert not judge(torch.ones(1, 3), expected, 1e-6).ok
    assert not judge(torch.zeros(3), torch.tensor([0.0, 0.0, 1e-9]), 1e-6).ok


def test_trained_weights_may_differ_where_adam_amplifies_rounding_only():
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0)
    amplification = Amplification(layer, optimizer)
    layer.weight.grad, layer.bias.grad = torch.full((3, 4), 0.1), torch.tensor([0.1, 0.1, 1e-12])
    optimizer.step()
    amplification.after_step()
    judge, expected = trained(amplification.of("bias")), torch.zeros(3)
    assert judge(torch.tensor([5e-8, 0, 5e-5]), expected, 1e-6).ok
    assert not judge(torch.tensor([0, 3e-7, 0]), expected, 1e-6).ok
    assert not judge(torch.tensor([0, 0, 2e-4]), expected, 1e-6).ok
    assert float(amplification.of("weight").max()) < 0.2
    assert amplification.of("pos_embed") is None


@pytest.mark.parametrize("file", ["dit", "sit"])
def test_a_training_module_is_whole_on_its_device(file):
    """The tables of DiT's objective are part of the module, not of the network."""
    golden = open_golden(GOLDEN)
    scope = Scope(Arrays(GOLDEN / f"{file}.npz"), Report(1e-6), Mode(torch.device("meta")), golden.config)
    train, align = TrainConfig(steps=1), SraSettings(blocks=golden.config.blocks)
    module = Networks(scope, golden.config.model(file)).module(train, align)
    assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} == {"meta"}
