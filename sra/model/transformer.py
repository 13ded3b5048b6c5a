"""The diffusion transformer, with SiT and DiT as two settings of it (DiT paper, section 3; SiT paper, section 3).

State-dict names are those of the published checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sra.config import CodecConfig, ModelConfig
from sra.model.token_groups import Groups


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Settings that determine the shapes of the weights."""

    depth: int
    width: int
    heads: int
    patch: int
    grid: int
    """Latent cells along one axis."""
    channels: int
    """Latent channels C."""
    outputs: int
    """Channels that the network predicts."""
    classes: int
    time_scale: float = 1.0
    label_init_std: float = 0.02

    @property
    def patch_values(self) -> int:
        """Values p*p*C of one patch of the latent."""
        return self.patch**2 * self.channels


def position_encoding(width: int, grid: int) -> Tensor:
    """Fixed 2-D sin-cos positions, (grid^2, width): columns first, then rows; per axis sines, then cosines."""
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    columns = axis[None, :, :].expand(grid, grid, -1)
    rows = axis[:, None, :].expand(grid, grid, -1)
    return torch.cat([columns, rows], dim=2).reshape(grid * grid, width).float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift; x is (N, T, D), shift and scale are (N, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class PatchEmbedding(nn.Module):
    """(N, C, H, W) to (N, T, D), row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        tokens: Tensor = self.proj(x)
        # Every block keeps this layout: left as the convolution made it, each LayerNorm would copy its input first.
        return tokens.flatten(2).transpose(1, 2).contiguous()


class TimestepEmbedding(nn.Module):
    """(..., N) times to (..., N, D): 256 sinusoids, cosines first, then an MLP."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """See the class."""
        frequency = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32, device=t.device) / 128)
        angle = (t.float() * self.scale)[..., None] * frequency
        sinusoids = torch.cat([angle.cos(), angle.sin()], dim=-1)
        embedded: Tensor = self.mlp(sinusoids)
        return embedded


class LabelEmbedding(nn.Module):
    """(N,) labels to (N, D); the last row of the table is the null label."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        """See the class."""
        embedded: Tensor = self.embedding_table(y)
        return embedded


class Attention(nn.Module):
    """Multi-head self-attention with one qkv projection, laid out (q, k, v) x heads x head width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, groups: Groups | None = None) -> Tensor:
        """(N, T, D) to (N, T, D), or pieces to pieces."""
        rows, _, d = x.shape
        n = rows if groups is None else rows // groups.pieces
        q, k, v = self.qkv(x).reshape(n, -1, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if groups is not None and groups.separated:
            parts = zip(*(a.split(groups.sizes, dim=2) for a in (q, k, v)), strict=True)
            mixed = torch.cat([F.scaled_dot_product_attention(*part) for part in parts], dim=2)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return out


class Mlp(nn.Module):
    """Two linears with tanh-GELU between, ratio 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) to (N, T, D)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """A transformer block with adaLN-Zero (DiT paper, figure 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor, groups: Groups | None = None) -> Tensor:
        """(N, T, D) tokens and (N, D) condition to (N, T, D); with groups, pieces and (2, N, D) to pieces."""
        modulation = self.adaLN_modulation(c)
        if groups is not None:
            modulation = groups.per_piece(modulation)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1), groups)
        out: Tensor = x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))
        return out


class FinalLayer(nn.Module):
    """(N, T, D) to (N, T, patch^2 * outputs), channel fastest."""

    def __init__(self, width: int, patch: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, patch * patch * outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor, groups: Groups | None = None) -> Tensor:
        """See the class; with groups, pieces and (2, N, D) to pieces."""
        modulation = self.adaLN_modulation(c)
        if groups is not None:
            modulation = groups.per_piece(modulation)
        shift, scale = modulation.chunk(2, dim=1)
        out: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return out


class Head(nn.Module):
    """SRA's projection of the student's block output, for training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) to (N, T, D)."""
        out: Tensor = self.linear2(F.silu(self.linear1(x)))
        return out


class DiffusionTransformer(nn.Module):
    """Predicts the velocity (SiT) or noise and variance (DiT) of latents."""

    pos_embed: Tensor

    def __init__(self, shape: Shape, *, head: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.x_embedder = PatchEmbedding(shape.channels, shape.width, shape.patch)
        self.t_embedder = TimestepEmbedding(shape.width, shape.time_scale)
        self.y_embedder = LabelEmbedding(shape.classes, shape.width)
        # A buffer: saved with the weights, but not part of optimizer, gradient norm and EMA.
        self.register_buffer("pos_embed", position_encoding(shape.width, shape.grid // shape.patch)[None])
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.final_layer = FinalLayer(shape.width, shape.patch, shape.outputs)
        self.ap_head: nn.Module | None = Head(shape.width) if head else None

    @property
    def tokens(self) -> int:
        """Tokens T of one image."""
        return (self.shape.grid // self.shape.patch) ** 2

    @property
    def null_label(self) -> int:
        """Index of the null label (no class)."""
        return self.shape.classes

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, taps: tuple[int, ...] = (), groups: Groups | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """The raw prediction and, if asked for, the outputs of some blocks.

        Args:
            x: (N, C, H, W) noisy latents.
            t: (N,) times of the family; (2, N) with groups.
            y: (N,) labels.
            taps: blocks, counted from 1, whose outputs (N, T, D) are also returned.
            groups: two groups of tokens with a time each.

        Returns:
            (N, outputs, H, W), or a tuple of it and the tapped blocks' outputs, in the order of `taps`.
        """
        c = self.condition(t, y)
        tokens, tapped = self._embed(x, groups), {}
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, c, groups)
            if number in taps:
                tapped[number] = _joined(tokens, groups)
        prediction = self.unpatchify(_joined(self.final_layer(tokens, c, groups), groups))
        return (prediction, *(tapped[number] for number in taps)) if taps else prediction

    def hidden(self, x: Tensor, t: Tensor, y: Tensor, block: int, groups: Groups | None = None) -> Tensor:
        """Output (N, T, D) of one block, counted from 1; later blocks are not computed."""
        c = self.condition(t, y)
        tokens = self._embed(x, groups)
        for layer in self.blocks[:block]:
            tokens = layer(tokens, c, groups)
        return _joined(tokens, groups)

    def condition(self, t: Tensor, y: Tensor) -> Tensor:
        """(..., N, D) from times (..., N) and labels (N,)."""
        c: Tensor = self.t_embedder(t) + self.y_embedder(y)
        return c

    def _embed(self, x: Tensor, groups: Groups | None) -> Tensor:
        tokens: Tensor = self.x_embedder(x) + self.pos_embed
        return tokens if groups is None else groups.cut(tokens)

    def patchify(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, T, p*p*C), channel fastest: the inverse of `unpatchify` for any C."""
        n, c, p = len(x), x.shape[1], self.shape.patch
        g = self.shape.grid // p
        return x.reshape(n, c, g, p, g, p).permute(0, 2, 4, 3, 5, 1).reshape(n, g * g, p * p * c)

    def per_cell(self, values: Tensor) -> Tensor:
        """(N, T), one number a token, to (N, 1, H, W), the same in all cells of its patch."""
        p = self.shape.patch
        g = self.shape.grid // p
        square = values.reshape(-1, 1, g, 1, g, 1).expand(-1, 1, g, p, g, p)
        return square.reshape(-1, 1, g * p, g * p)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(N, T, p*p*C) to (N, C, H, W)."""
        p, c = self.shape.patch, self.shape.outputs
        g = self.shape.grid // p
        return tokens.reshape(-1, g, g, p, p, c).permute(0, 5, 1, 3, 2, 4).reshape(-1, c, g * p, g * p)


def _joined(tokens: Tensor, groups: Groups | None) -> Tensor:
    return tokens if groups is None else groups.join(tokens)


def shape_of(model: ModelConfig, codec: CodecConfig) -> Shape:
    """The shape of a network with these settings."""
    size = model.dimensions
    channels, grid, _ = codec.latent_shape(model.resolution)
    return Shape(
        depth=size.depth,
        width=size.width,
        heads=size.heads,
        patch=model.patch,
        grid=grid,
        channels=channels,
        outputs=model.output_channels(codec),
        classes=model.classes,
        time_scale=model.time_scale,
        label_init_std=model.label_init_std,
    )


def build(model: ModelConfig, codec: CodecConfig, *, head: bool = False) -> DiffusionTransformer:
    """A network with torch's default weights; see `initialise`."""
    return DiffusionTransformer(shape_of(model, codec), head=head)


MAX_COMPILATIONS = 64
"""Of the block in one process, which may run networks of many widths; beyond it torch runs the block eagerly."""


COMPILE_OPTIONS: dict[str, dict[str, bool]] = {
    "on": {},
    # Casts of weights, and whatever else is small and independent, share a kernel.
    "combined": {"combo_kernels": True, "combo_kernels_pointwise_only": True},
    "max-autotune": {"max_autotune": True},
}
"""Options of torch's compiler for each value of the switch `compile` but `off`."""


def compile_blocks(network: DiffusionTransformer, *, fixed_shapes: bool, how: str = "on") -> None:
    """Compile the blocks in place: they share one compilation, and the names of the state stay.

    Args:
        network: whose blocks to compile.
        fixed_shapes: compile each shape of the tokens for itself, as in training, which has one or two of them;
            otherwise the second shape is compiled for any, as in sampling.
        how: value of the switch `compile`, not `off`.
    """
    # DDP would have every block cut where a bucket of gradients ends; blocks are small enough to overlap as they are.
    torch._dynamo.config.optimize_ddp = False
    torch._dynamo.config.recompile_limit = MAX_COMPILATIONS
    for block in network.blocks:
        block.compile(dynamic=False if fixed_shapes else None, options=COMPILE_OPTIONS[how])


def cast_blocks(network: DiffusionTransformer, dtype: torch.dtype) -> None:
    """Store the weights of the blocks' products in half precision: as autocast does, but once and not at every call."""
    for module in network.blocks.modules():
        if isinstance(module, nn.Linear):
            module.to(dtype)


def initialise(network: DiffusionTransformer, seed: int) -> None:
    """Initialise as DiT does, from one seed. The head has its own generator: all else is equal without it."""
    generator = torch.Generator().manual_seed(seed)
    body = [(name, module) for name, module in network.named_modules() if not name.startswith("ap_head")]
    for _, module in body:
        if isinstance(module, nn.Linear):
            _xavier(module, generator)
    parameters = dict(network.named_parameters())
    patch = parameters["x_embedder.proj.weight"]
    nn.init.xavier_uniform_(patch.data.view(patch.shape[0], -1), generator=generator)
    nn.init.zeros_(parameters["x_embedder.proj.bias"])
    labels = parameters["y_embedder.embedding_table.weight"]
    nn.init.normal_(labels, std=network.shape.label_init_std, generator=generator)
    for index in (0, 2):
        nn.init.normal_(parameters[f"t_embedder.mlp.{index}.weight"], std=0.02, generator=generator)
    for name, parameter in parameters.items():
        if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
            nn.init.zeros_(parameter)
    if network.ap_head is not None:
        own = torch.Generator().manual_seed(seed)
        for module in network.ap_head.modules():
            if isinstance(module, nn.Linear):
                _xavier(module, own)


FILLED_STD = 0.02
"""Standard deviation of the weights that `fill_zeros` draws."""


@torch.no_grad()
def fill_zeros(network: DiffusionTransformer, seed: int) -> None:
    """Draw the weights that `initialise` sets to zero: a network that works like a trained one, without training."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and not parameter.any():
            parameter.copy_(torch.empty(parameter.shape).normal_(std=FILLED_STD, generator=generator))


def _xavier(linear: nn.Linear, generator: torch.Generator) -> None:
    nn.init.xavier_uniform_(linear.weight, generator=generator)
    nn.init.zeros_(linear.bias)
