"""Shared by the checks of all golden files: sections, networks, training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from sra.common.errors import UserError
from sra.config import AlignSettings, ModelConfig, TrainConfig
from sra.model.transformer import DiffusionTransformer, position_encoding, shape_of
from sra.model.weights import network_of
from sra.parity.golden import Scope
from sra.parity.randoms import GoldenRandoms, labels_after_dropout
from sra.parity.tolerance import exact, gradient, table
from sra.training.module import StepLosses, TrainingModule

Check = Callable[[Scope], None]
GUIDED: Literal[3] = 3
"""Channels that guidance acts on in the numbers of DiT and vanilla SiT."""


def run_sections(file: Scope, sections: dict[str, Check]) -> None:
    """Run the checks of a file's sections; a key that none of them asked for is a failure."""
    for name, check in sections.items():
        if name in file.children:
            file.mode.forget()
            attempt(file.at(name), check)
        else:
            file.report.absent.append(file.item(name))
    for key in file.arrays.unread:
        file.report.fail(file.item(key), "unknown key, or an input that feeds nothing")


def attempt(scope: Scope, check: Check) -> None:
    """Run one check; what cannot be used as input is a failure of its own."""
    try:
        check(scope)
    except UserError as error:
        scope.report.fail(f"{scope.arrays.stem}/{scope.prefix}", str(error))
        scope.arrays.state(scope.prefix)


class Networks:
    """The networks whose weights a file holds; each is loaded (and compiled) once."""

    def __init__(self, file: Scope, model: ModelConfig) -> None:
        self.file, self.model = file, model
        self._loaded: dict[str, DiffusionTransformer] = {}

    def load(self, which: str = "model") -> DiffusionTransformer:
        """Ready to run; to change its weights, make a `fresh` one.

        Raises:
            DataError: the weights do not fit the configuration.
        """
        if which not in self._loaded:
            self._loaded[which] = self.file.mode.prepared(self.fresh(which))
        return self._loaded[which]

    def constants(self) -> None:
        """Compare what the file's weights hold besides weights: the position encoding."""
        shape = shape_of(self.model, self.file.config.codec)
        found = position_encoding(shape.width, shape.grid // shape.patch)[None]
        for which in ("model", "teacher"):
            if which in self.file.children:
                self.file.compare(f"{which}/pos_embed", found, table)

    def fresh(self, which: str = "model") -> DiffusionTransformer:
        """As the file has it, not yet on the device.

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
        """For training: of a network with other weights or another path, where given."""
        module = TrainingModule(model or self.model, self.file.config.codec, train, align)
        module.network = network or self.load()
        module.zero_grad()
        return module


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
    """One step forward and back: the gradient's norm, the listed gradients, the labels."""
    case.compare("labels_after_dropout", labels_after_dropout(case), exact)
    with case.mode.autocast():
        losses: StepLosses = module(*images_and_labels(case), randoms, teacher)
    losses.total.backward()  # type: ignore[no-untyped-call]
    case.compare("total_grad_norm", nn.utils.clip_grad_norm_(module.parameters(), float("inf")))
    parameters = dict(module.network.named_parameters())
    for name in case.arrays.state(case.key("grad")):
        if name not in parameters:
            raise UserError(f"grad/{name}: the network has no such parameter")
        found = parameters[name].grad
        assert found is not None
        case.compare(f"grad/{name}", found, gradient)
    return losses
