"""Prepare latents: `python -m sra.data.latents` encodes images, or packs existing latents for training."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sra.common.errors import DataError, Stopped
from sra.common.files import sha256_file
from sra.common.processes import usable_cores
from sra.config import CODEC_FILES, LatentsJob
from sra.data.labels import check_split, read_labels
from sra.data.packed import FACTS, FLIPPED, Array, PackedFolder, PackedWriter, adopt, check_shape, is_packed
from sra.data.public_layout import PublicLatents, find_public, pack
from sra.model.vae import Codec, codec_folder, load_codec
from sra.runtime import job
from sra.runtime.device import set_tf32


def sample_latent(moments: Tensor, eps: Tensor, scale: float) -> Tensor:
    """z = (mean + std * eps) * scale: (N, 2C, h, w) and (N, C, h, w) to (N, C, h, w)."""
    mean, std = moments.chunk(2, dim=1)
    return (mean + std * eps) * scale


class PackedLatents(PackedFolder):
    """Packed latents as tensors."""

    def batch(self, indices: Array, mirrored: Array | None = None) -> tuple[Tensor, Tensor]:
        """(N, 2C, h, w) float32 moments and (N,) int64 labels.

        Args:
            indices: (N,) images.
            mirrored: (N,) bool, which of them to take from the mirrored images; None: no image is mirrored.
        """
        moments = np.ascontiguousarray(self.moments[indices], dtype=np.float32)
        if mirrored is not None:
            assert self.flipped is not None
            moments[mirrored] = self.flipped[indices[mirrored]]
        return torch.from_numpy(moments), torch.from_numpy(self.labels[indices])


def encode(config: LatentsJob, images: Path, out: Path) -> None:
    """Encode a prepared image folder into packed latents; an interrupted call continues to the same bits.

    Raises:
        DataError: images without labels, or unreadable ones.
    """
    if is_packed(out):
        print("latents are complete", flush=True)
        return
    table = read_labels(images / "images" / "dataset.json")
    # As the authors' script does, by torch's defaults.
    set_tf32("tf32")
    codecs = [load_codec(config.codec, device) for device in _devices()]
    shape = (len(table), *config.codec.moments_shape(config.resolution))
    with PackedWriter(out, shape, config.data.latent_dtype, flipped=config.flipped) as writer:
        progress = job.Progress("latents", len(table), " images", done=writer.done)
        batches = _read_batches(images / "images", list(table)[writer.done :], config.batch)
        for moments in _encoded(config, codecs, batches):
            writer.write(*moments)
            progress.update(len(moments[0]))
        weights = codec_folder(config.codec) / CODEC_FILES[1]
        writer.finish(list(table.values()), {"codec_sha256": sha256_file(weights) if weights.is_file() else None})


def _devices() -> list[str]:
    """All GPUs that are visible, else the CPU."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]


def _encoded(config: LatentsJob, codecs: list[Codec], batches: Iterator[Tensor]) -> Iterator[list[Array]]:
    """Moments of the batches in order; each codec works in a thread of its own, with one more batch waiting for it."""
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="encoder")) for _ in codecs]
        running: deque[Future[list[Array]]] = deque()
        try:
            for number, pixels in enumerate(batches):
                job.check_stop()
                turn = number % len(codecs)
                running.append(pools[turn].submit(_moments, config, codecs[turn], pixels))
                if len(running) == 2 * len(codecs):
                    yield running.popleft().result()
        except Stopped:
            # What was begun is kept.
            yield from (future.result() for future in running)
            raise
        yield from (future.result() for future in running)


def _moments(config: LatentsJob, codec: Codec, pixels: Tensor) -> list[Array]:
    """Moments of a batch of images (n, H, W, 3) and, if asked for, of its mirrored copy."""
    versions = [pixels, pixels.flip(2)] if config.flipped else [pixels]
    found = [codec.moments(version).cpu().numpy() for version in versions]
    check_shape(found[0].shape[1:], config.codec.moments_shape(config.resolution), f"codec.path {config.codec.path}")
    return found


def _read_batches(folder: Path, names: list[str], batch: int) -> Iterator[Tensor]:
    """Batches (n, H, W, 3) uint8; the next one is read while the codec works on this one."""
    starts = range(0, len(names), batch)
    with ThreadPoolExecutor(usable_cores()) as pool:

        def ask(start: int) -> Iterator[Array]:
            return pool.map(_pixels, [folder / name for name in names[start : start + batch]])

        asked = [ask(start) for start in starts[:1]]
        for following in itertools.chain(starts[1:], [None]):
            rows = asked.pop()
            asked += [ask(following)] if following is not None else []
            yield torch.from_numpy(np.stack(list(rows)))


def _pixels(path: Path) -> Array:
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: expected a whole image, got: {error}") from error


def use_existing(config: LatentsJob, out: Path) -> None:
    """Use the latents of `data.latents`: link packed ones, pack those in the public layout.

    Raises:
        DataError: neither layout, another shape, truncated, without labels, or without the mirrored latents.
    """
    if is_packed(out):
        print("latents are complete", flush=True)
        return
    path = Path(str(config.data.latents))
    where, public = f"data.latents {path}", find_public(path)
    if is_packed(path):
        packed = PackedFolder(path)
        check_shape(packed.shape, config.codec.moments_shape(config.resolution), where)
        check_split(config.data.split, packed.count, packed.classes, where)
        adopt(packed, out, flipped=config.flipped)
    elif public is None:
        raise DataError(f"{where}: expected {FACTS} (packed) or vae-sd/dataset.json (public layout), got neither")
    elif config.flipped:
        raise DataError(f"{where}: expected packed latents with {FLIPPED} for train.flip, got the public layout")
    else:
        source = PublicLatents(public)
        check_shape(source.shape, config.codec.moments_shape(config.resolution), where)
        check_split(config.data.split, len(source.labels), len(set(source.labels)), where)
        pack(source, out, config.data.latent_dtype)


def main(arguments: list[str]) -> None:
    """`python -m sra.data.latents --config stage.json --images DIR --out DIR`."""
    parser = argparse.ArgumentParser(prog="python -m sra.data.latents", description=main.__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options: Any = parser.parse_args(arguments)
    config = job.read_config(options.config, LatentsJob)
    if config.data.latents is not None:
        use_existing(config, options.out)
    else:
        encode(config, options.images, options.out)


if __name__ == "__main__":
    job.run(main)
