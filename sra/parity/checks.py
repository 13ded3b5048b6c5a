"""Common parts of the checks: sections, networks, training steps, and the random numbers that the reference drew."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from sra.common.errors import DataError, UserError
from sra.config import GROUP_0_DIVISOR, AlignSettings, ModelConfig, TrainConfig
from sra.model.transformer import DiffusionTransformer, position_encoding, shape_of
from sra.model.weights import network_of
from sra.objectives.ddpm import STEPS
from sra.parity.compare import exact, gradient, table
from sra.parity.golden import Scope
from sra.training.losses import StepLosses, TrainingModule

Check = Callable[[Scope], None]
GUIDED: Literal[3] = 3
"""Channels that guidance acts on in the numbers of DiT and vanilla SiT."""


def run_sections(file: Scope, sections: dict[str, Check]) -> None:
    """Run the checks of a file's sections; a key that no check has read is a failure."""
    for name, check in sections.items():
        if name in file.children:
            file.mode.forget()
            attempt(file.at(name), check)
        else:
            file.report.absent.append(file.item(name))
    for key in file.arrays.unread:
        file.report.fail(file.item(key), "expected a known key or an input of some check, got neither")


def attempt(scope: Scope, check: Check) -> None:
    """Run one check; unusable input is a failure of its own."""
    try:
        check(scope)
    except UserError as error:
        scope.report.fail(scope.item("").rstrip("/"), str(error))
        scope.arrays.state(scope.prefix)


class Networks:
    """The networks whose weights a file holds; each is loaded (and compiled) once."""

    def __init__(self, file: Scope, model: ModelConfig) -> None:
        self.file, self.model = file, model
        self._loaded: dict[str, DiffusionTransformer] = {}

    def load(self, which: str = "model") -> DiffusionTransformer:
        """A network, ready to run. To change its weights, use a `fresh` one.

        Raises:
            DataError: the weights do not fit the configuration.
        """
        if which not in self._loaded:
            self._loaded[which] = self.file.mode.prepared(self.fresh(which))
        return self._loaded[which]

    def constants(self) -> None:
        """Compare the position encodings that are saved among the weights."""
        shape = shape_of(self.model, self.file.config.codec)
        found = position_encoding(shape.width, shape.grid // shape.patch)[None]
        for which in ("model", "teacher"):
            if which in self.file.children:
                self.file.compare(f"{which}/pos_embed", found, table)

    def fresh(self, which: str = "model") -> DiffusionTransformer:
        """A network as the file has it, not yet on the device.

        Raises:
            DataError: see `load`.
        """
        return network_of(self.file.arrays.state(which), self.model, self.file.config.codec, which)

    def module(
        self,
        train: TrainConfig,
        align: AlignSettings,
        model: ModelConfig | None = None,
        network: DiffusionTransformer | None = None,
    ) -> TrainingModule:
        """The training module of the loaded network, or of a given network or path."""
        module = TrainingModule(model or self.model, self.file.config.codec, train, align)
        module.network = network or self.load()
        module.zero_grad()
        # The network is there already; the tables of the objective are not.
        return module.to(self.file.mode.device)


def images_and_labels(case: Scope) -> tuple[Tensor, Tensor]:
    """A batch of clean latents (N, C, H, W) and its labels (N,) before dropout.

    Raises:
        DataError: there is none, or it does not fit the configuration.
    """
    labels = case.labels("labels")
    return case.latents("images", len(labels)), labels


def losses_and_gradients(
    case: Scope, module: TrainingModule, teacher: DiffusionTransformer, randoms: GoldenRandoms
) -> StepLosses:
    """Run one step forward and back; compare labels, gradient norm and the listed gradients."""
    case.compare("labels_after_dropout", labels_after_dropout(case), exact)
    with case.mode.autocast():
        losses: StepLosses = module(*images_and_labels(case), randoms, teacher)
    compare_gradients(case, module, losses)
    return losses


def compare_gradients(case: Scope, module: TrainingModule, losses: StepLosses) -> None:
    """Run a step backward; compare gradient norm and the listed gradients."""
    losses.total.backward()  # type: ignore[no-untyped-call]
    case.compare("total_grad_norm", nn.utils.clip_grad_norm_(module.parameters(), float("inf")))
    parameters = dict(module.network.named_parameters())
    for name in case.arrays.state(case.key("grad")):
        if name not in parameters:
            raise UserError(f"grad/{name}: expected a parameter of the network")
        found = parameters[name].grad
        assert found is not None
        case.compare(f"grad/{name}", found, gradient)


DROPOUT = 0.5
"""Label dropout between the two values of the stream `dropout` below: 0 is dropped, 1 is kept."""


class GoldenRandoms:
    """A `RandomSource` of the numbers that the reference drew, by name of the stream."""

    def __init__(self, uniform: dict[str, Tensor], normal: dict[str, Tensor]) -> None:
        self._uniform, self._normal = uniform, normal

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:  # noqa: ARG002 - as it is stored
        """(N, *shape)."""
        return self._uniform[name]

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:  # noqa: ARG002 - as it is stored
        """(N, *shape)."""
        return self._normal[name]


def for_sit(case: Scope, path: str) -> GoldenRandoms:
    """Random numbers of one step of SiT with SRA, for both distributions of times."""
    count = len(case.labels("labels"))
    t = case.shaped("t", count)
    uniform = {"t": t, "dropout": _kept(case), "align.time": _offset(case, t)}
    return GoldenRandoms(uniform, {"noise": case.latents("noise", count), "t.normal": _normal_of(t, path)})


def for_groups(case: Scope) -> GoldenRandoms:
    """Random numbers of one step with two groups of tokens; group 1 has the baseline's time."""
    count, tokens = len(case.labels("labels")), case.config.tokens
    t, group = case.shaped("t", 2, count), case.shaped("group", count, tokens).long()
    sizes = torch.stack([(group == 0).sum(1), (group == 1).sum(1)], dim=1)
    target = sizes.new_tensor([tokens // GROUP_0_DIVISOR, tokens - tokens // GROUP_0_DIVISOR])
    if not (sizes == target).all():
        raise DataError(f"group: expected 0 for one in {GROUP_0_DIVISOR} tokens of each sample, else 1")
    uniform = {"align.group": group.float(), "align.t": t[0], "t": t[1], "dropout": _kept(case)}
    if case.has("t_teacher"):
        uniform["align.time"] = _offset(case, t).T
    return GoldenRandoms(uniform, {"noise": case.latents("noise", count)})


def for_dit(case: Scope) -> GoldenRandoms:
    """Random numbers of one step of DiT, in the middle of what becomes an integer step."""
    count = len(case.labels("labels"))
    t, t_teacher = case.shaped("t", count).long(), case.shaped("t_teacher", count).long()
    if not ((t >= 0) & (t < STEPS)).all():
        raise DataError(f"t: expected steps from 0 to {STEPS - 1}")
    offset = ((t - t_teacher).clamp_min(0).double() + 0.5) / max(round(case.config.t_max * STEPS), 1)
    uniform = {"t": (t.double() + 0.5) / STEPS, "dropout": _kept(case), "align.time": offset}
    return GoldenRandoms(uniform, {"noise": case.latents("noise", count)})


def labels_after_dropout(case: Scope) -> Tensor:
    """(N,) labels after dropout; the golden ones must be these or null."""
    labels = case.labels("labels")
    return torch.where(_kept(case) < DROPOUT, torch.full_like(labels, case.config.num_classes), labels)


def _kept(case: Scope) -> Tensor:
    case.shaped("labels_after_dropout", len(case.labels("labels")))
    return (case.labels("labels_after_dropout") != case.config.num_classes).float()


def _offset(case: Scope, t: Tensor) -> Tensor:
    """U of t' = clamp(t - U t_max, 0, 1)."""
    difference = t - case.shaped("t_teacher", *t.shape)
    return (difference / case.config.t_max).clamp(0, 1) if case.config.t_max else torch.zeros_like(t)


def _normal_of(t: Tensor, path: str) -> Tensor:
    """The normal number of a log-normal time: the inverse of `flow.draw_times`."""
    t = t.double()
    s = t / (1 - t) if path == "linear" else torch.tan(t * math.pi / 2)
    return s.log().float()
