"""Two noise levels in one image: golden numbers, groups, separation, what the teacher sees."""

import pytest
import torch

from sra.alignment.self_flow import Settings as SelfFlow
from sra.config import TrainConfig
from sra.method import TrainingModule
from sra.network import build

LIMIT = 1e-6
TEACHERS = {"sra_masked": "own-times", "self_flow_clean": "all-at-min", "self_flow_masked": "min-and-clean"}


class GoldenGroups:
    """Gives the reference's groups, times, noise and labels."""

    def __init__(self, given, prefix, null_label, interval):
        self.numbers = {
            "align.group": given[f"{prefix}/group"].float(),
            "align.t": given[f"{prefix}/t"][0],
            "t": given[f"{prefix}/t"][1],
            "dropout": (given[f"{prefix}/labels_after_dropout"] != null_label).float(),
        }
        if f"{prefix}/t_teacher" in given:
            self.numbers["align.time"] = (given[f"{prefix}/t"] - given[f"{prefix}/t_teacher"]).T / interval
        self.noise = given[f"{prefix}/noise"]

    def uniform(self, name, shape=()):
        return self.numbers[name]

    def normal(self, name, shape=()):
        return self.noise


@pytest.mark.parametrize("attention", ["full", "separated"])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_losses_and_gradients(attention, teacher, sit, model, codec, golden_config, helpers):
    blocks = (golden_config["block_out_s"], golden_config["block_out_t"])
    align = SelfFlow(blocks=blocks, teacher=TEACHERS[teacher], separated=attention == "separated")
    module = TrainingModule(model, codec, TrainConfig(steps=1, label_dropout=0.5), align)
    module.network.load_state_dict(helpers.state(sit, "model/"))
    ema = build(model, codec, head=True).eval()
    ema.load_state_dict(helpers.state(sit, "teacher/"))
    prefix = f"dual_timestep/{attention}/{teacher}"
    randoms = GoldenGroups(sit, prefix, model.classes, align.interval)
    losses = module(sit[f"{prefix}/images"], sit[f"{prefix}/labels"], randoms, ema)
    assert helpers.error(losses.generation, sit[f"{prefix}/gen_loss"]) < LIMIT
    assert helpers.error(losses.alignment, sit[f"{prefix}/align_loss"]) < LIMIT
    losses.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 1e9)
    assert helpers.error(norm, sit[f"{prefix}/total_grad_norm"]) < LIMIT
