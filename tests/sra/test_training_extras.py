"""What hangs on training without changing it: sample grids, reading ahead, the authors' checkpoint layout."""

import dataclasses
import json
import threading

import numpy as np
import pynvml
import pytest
import torch
from PIL import Image

from sra.common.errors import DataError, UserError
from sra.common.files import write_json
from sra.config import to_plain
from sra.data.prefetch import Prefetcher
from sra.interop import export
from sra.model.transformer import build, initialise
from sra.model.weights import load_network, read_state
from sra.sampling.image_grid import TrainingGrid, write_grid
from sra.training import checkpoint
from sra.training.logbook import power_draw
from sra.training.train import Trainer


def changed(job, **changes):
    return dataclasses.replace(job, train=dataclasses.replace(job.train, **changes))


def test_grids_do_not_disturb_training(train, small, digit_latents, tmp_path):
    plain = train(small.job, digit_latents, tmp_path / "plain")
    drawn = train(changed(small.job, grid_every=2), digit_latents, tmp_path / "drawn")
    assert plain.weights_file(4).read_bytes() == drawn.weights_file(4).read_bytes()
    logs = [[json.loads(line)["loss"] for line in (t.out / "log.jsonl").open()] for t in (plain, drawn)]
    assert logs[0] == logs[1]
    assert not (plain.out / "grids").exists()
    pictures = sorted((drawn.out / "grids").iterdir())
    assert [p.name for p in pictures] == ["step-00000002.png", "step-00000004.png"]
    assert Image.open(pictures[0]).size == (8 * 32, 8 * 46)


def test_grids_show_the_same_noise_again(small, digit_latents, tmp_path):
    trainer = Trainer(changed(small.job, grid_every=1), digit_latents, tmp_path)
    for step in (1, 2):
        trainer.grid.draw(trainer.state.ema, step)
    one, two = (tmp_path / "grids" / f"step-{step:08d}.png" for step in (1, 2))
    assert one.read_bytes() == two.read_bytes()


def test_grids_of_dit(small, tmp_path):
    model = dataclasses.replace(small.model, family="dit")
    network = build(model, small.codec)
    initialise(network, 0)
    TrainingGrid(dataclasses.replace(small.job, model=model), tmp_path, torch.device("cpu")).draw(network.eval(), 7)
    assert Image.open(tmp_path / "step-00000007.png").size == (8 * 32, 8 * 46)


def test_a_grid_of_few_images_is_white_beyond_them_and_has_their_labels(tmp_path):
    grids = []
    for labels in (range(9), [4] * 9):
        write_grid(np.tile(np.uint8([7, 200, 30]), (9, 16, 16, 1)), labels, tmp_path / "grid.png")
        grids.append(np.asarray(Image.open(tmp_path / "grid.png")))
    height = 16 + 14
    assert grids[0].shape == (8 * height, 8 * 16, 3)
    assert (grids[0] == (7, 200, 30)).all(axis=2).sum() == 9 * 16 * 16
    assert (grids[0][2 * height :] == 255).all()
    changed = [tuple(place) for place in np.argwhere((grids[0] != grids[1]).any(axis=2))]
    assert changed
    assert all(y % height < 14 for y, _ in changed)
    assert not any(x // 16 == 4 and y < height for y, x in changed)


def test_reading_ahead_changes_nothing(train, small, digit_latents, tmp_path):
    runs = [train(changed(small.job, workers=n), digit_latents, tmp_path / str(n)) for n in (0, 3)]
    assert runs[0].weights_file(4).read_bytes() == runs[1].weights_file(4).read_bytes()


def test_batches_are_chosen_in_order_and_read_before_they_are_asked_for():
    chosen, read = [], threading.Event()

    def read_batch(number):
        if number == 2:
            read.set()
        return number

    ahead = Prefetcher(lambda number: (chosen.append(number), number)[1:], read_batch, 2)
    assert ahead.get(0) == 0
    assert read.wait(5)
    assert [ahead.get(n) for n in (1, 2, 3)] == [1, 2, 3]
    assert chosen == [0, 1, 2, 3, 4, 5]


def test_an_error_while_reading_reaches_the_caller():
    def fail(_):
        raise DataError("truncated")

    with pytest.raises(DataError, match="truncated"):
        Prefetcher(lambda number: (number,), fail, 2).get(0)


@pytest.fixture(params=["sra", "baseline"])
def stage(train, request, small, digit_latents, tmp_path):
    job = small.job if request.param == "sra" else dataclasses.replace(small.job, align=None)
    trainer = train(changed(job, steps=9), digit_latents, tmp_path / "stage")
    write_json(
        trainer.out / "stage.json", {"config": to_plain(trainer.config), "inputs": {"latents": str(digit_latents)}}
    )
    return trainer


def test_exported_checkpoints_load_like_published_ones(stage, small, tmp_path, capsys):
    out = tmp_path / "public.pt"
    export.main([str(stage.out), str(out)])
    said = capsys.readouterr().out
    assert "step 9 of SiT-2x16x2/2" in said
    assert ("without SRA's head" in said) == (stage.config.align is None)
    for which, expected in (("ema", stage.state.ema), ("model", stage.state.network)):
        found = load_network(out, small.model, small.codec, which).state_dict()
        assert found.keys() == expected.state_dict().keys()
        assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.items())


def test_exported_optimizer_state_fits_the_authors_network(stage, tmp_path, helpers):
    import argparse

    export.export(stage.out, tmp_path / "public.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        document = torch.load(tmp_path / "public.pt", weights_only=True)
    assert set(document) == {"model", "ema", "opt", "args", "epoch", "steps"}
    assert (document["steps"], document["epoch"]) == (9, 9 // (60 // 8))
    assert (document["args"].resolution, document["args"].num_classes) == (32, 10)
    # Their parameters come in the order of the published names, the frozen position encoding first.
    theirs = [
        (name, value)
        for name, value in document["model"].items()
        if name in dict(stage.state.network.named_parameters())
    ]
    expected = {name: stage.state.optimizer.state[p]["exp_avg"] for name, p in stage.state.network.named_parameters()}
    parameters = [torch.nn.Parameter(torch.zeros_like(v)) for v in document["model"].values()]
    optimizer = torch.optim.AdamW(parameters)
    optimizer.load_state_dict(document["opt"])
    assert next(iter(document["model"])) == "pos_embed"
    assert parameters[0] not in optimizer.state
    for (name, _), parameter in zip(theirs, parameters[1:], strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], expected[name]), name


def test_names_stand_in_the_order_of_published_files(model, codec):
    from pathlib import Path

    from sra.interop.export import in_public_order

    golden = json.loads((Path(__file__).parents[1] / "golden" / "config.json").read_text())["sit_state_dict"]
    network = build(model, codec, head=True)
    assert in_public_order(network.state_dict()) == [name for name, _ in golden]
    assert in_public_order([*network.state_dict(), "ap_head.layers.0.weight"]) == [name for name, _ in golden]


def test_what_cannot_be_exported_is_said(small, digit_latents, tmp_path):
    (tmp_path / "stage").mkdir()
    document = {"config": to_plain(small.job), "inputs": {"latents": str(digit_latents)}}
    write_json(tmp_path / "stage" / "stage.json", document)
    with pytest.raises(DataError, match="checkpoints: expected a resumable checkpoint"):
        export.export(tmp_path / "stage", tmp_path / "out.pt")
    checkpoint.write(tmp_path / "stage" / "checkpoints", 1, {"format": checkpoint.FORMAT, "step": 1})
    with pytest.raises(UserError, match=r"OUT .*: expected a file, got a folder"):
        export.export(tmp_path / "stage", tmp_path)
    write_json(tmp_path / "stage" / "stage.json", {"config": to_plain(small.job)})
    with pytest.raises(DataError, match=r"latents\.json: cannot be read"):
        export.export(tmp_path / "stage", tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_exported_states_are_the_files_own(stage, tmp_path):
    export.export(stage.out, tmp_path / "public.pt")
    head = [name for name in read_state(tmp_path / "public.pt", "ema") if name.startswith("ap_head.")]
    assert bool(head) == (stage.config.align is not None)


def test_power_is_what_the_driver_reports_of_this_gpu(monkeypatch):
    """412 W of the second GPU of the machine, the first that this process sees."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", {0: 90_000, 1: 412_000}.__getitem__)
    assert power_draw(torch.device("cuda", 0)) == {"watts": 412.0}


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetPowerUsage"])
@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_NOT_SUPPORTED])
def test_no_power_is_made_up_without_a_driver_or_where_it_does_not_tell(call, error, monkeypatch):
    def refuse(*_):
        raise pynvml.NVMLError(error)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, call, refuse)
    assert power_draw(torch.device("cuda", 0)) == {}


def test_a_cpu_logs_no_power(train, small, digit_latents, tmp_path):
    log = (train(small.job, digit_latents, tmp_path / "run").out / "log.jsonl").read_text().splitlines()
    assert log
    assert not any("watts" in json.loads(line) for line in log)
