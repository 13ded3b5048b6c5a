"""Conversion of latents: `python -m sra.interop.convert_latents SRC DST --to packed|public`."""

from __future__ import annotations

from pathlib import Path

from sra.common.arguments import ArgumentParser
from sra.common.errors import DataError
from sra.data.packed import FACTS, PackedFolder, is_packed
from sra.data.public_layout import PublicLatents, find_public, pack, unpack
from sra.runtime import job


def convert(source: Path, target: Path, to: str, dtype: str = "float32") -> str:
    """Bring latents into the other layout; an interrupted call continues.

    Args:
        source: packed, or in the public layout.
        target: a folder that is new, empty or left by an interrupted call.
        to: `packed` or `public`.
        dtype: storage of packed latents; the public layout is float32.

    Raises:
        DataError: a source that is neither or has that layout already, a target that holds something else, a fault in
            the data.
    """
    public = find_public(source)
    if not is_packed(source) and public is None:
        raise DataError(f"{source}: found neither {FACTS} (packed) nor vae-sd/dataset.json (public layout)")
    found = "packed" if is_packed(source) else "public"
    if found == to:
        raise DataError(f"{source}: is in the layout {to!r} already")
    if target.is_file():
        raise DataError(f"{target}: found a file, a folder is needed")
    if to == "public":
        unpack(PackedFolder(source), target)
    elif not is_packed(target):
        assert public is not None
        pack(PublicLatents(public), target, dtype)
    return f"{target}: {to} layout"


def main(arguments: list[str]) -> None:
    """Convert latents between the packed format and the authors' layout (vae-sd/, one file an image)."""
    parser = ArgumentParser(prog="sra-bench latents convert", description=main.__doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of latents in either layout")
    parser.add_argument("target", type=Path, metavar="DST", help="folder to write")
    parser.add_argument("--to", required=True, choices=("packed", "public"), help="layout of DST")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="storage of packed latents")
    options = parser.parse_args(arguments)
    print(convert(options.source, options.target, options.to, options.dtype), flush=True)


if __name__ == "__main__":
    job.run(main)
