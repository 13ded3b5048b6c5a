"""Images in parquet files: a column `image` of structs with `bytes`, as Hugging Face's `datasets` has, or of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from sra.common.archives import FREE_BYTES, MAX_MEMBER_BYTES, MAX_RATIO
from sra.common.errors import DataError

IMAGE, BYTES, LABELS = "image", "bytes", ("label", "labels")
ROWS, BUFFER_BYTES = 64, 1 << 20
"""Read at a time."""


class Parquet:
    """Parquet files of one schema."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path, self.files, self.notes = path, files, list[str]()
        for file in files:
            with _opened(file) as table:
                _check_size(file, table)
                found = _column(file, table), next((name for name in LABELS if name in table.schema_arrow.names), None)
            if file == files[0]:
                self.column, self.label = found
            elif found != (self.column, self.label):
                raise DataError(f"{file}: expected the columns of {files[0].name}, got others")

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Every image, in order."""
        for file in self.files:
            for number, content in enumerate(self._values(file, self.column)):
                if content is None or len(content) > MAX_MEMBER_BYTES:
                    got = "none (a path alone?)" if content is None else f"{len(content):,} bytes"
                    raise DataError(f"{file}: row {number}: expected the bytes of an image, got {got}")
                yield f"{file.name} row {number}", content

    def labels(self) -> list[int] | None:
        """The column `label`; None if there is none.

        Raises:
            DataError: not whole numbers.
        """
        if self.label is None:
            return None
        found = [value for file in self.files for value in self._values(file, self.label)]
        if not all(isinstance(value, int) for value in found):
            raise DataError(f"{self.path}: {self.label}: expected whole numbers in every row")
        return found

    def _values(self, file: Path, column: str) -> Iterator[Any]:
        with _opened(file) as table:
            for batch in table.iter_batches(ROWS, columns=[column], use_threads=False):
                values = batch.column(0)
                if pa.types.is_struct(values.type):
                    values = values.field(BYTES)
                yield from values.to_pylist()


@contextmanager
def _opened(file: Path) -> Iterator[ParquetFile]:
    """A parquet file that is read in pieces; what is wrong with it becomes a DataError."""
    try:
        with ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True) as table:
            yield table
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file}: expected a whole parquet file, got: {reason:.200}") from error


def _column(file: Path, table: ParquetFile) -> str:
    """The column of images: `image`, or the only one that holds bytes."""

    def holds_bytes(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def is_image(kind: pa.DataType) -> bool:
        is_struct = pa.types.is_struct(kind) and kind.get_field_index(BYTES) >= 0
        return is_struct and holds_bytes(kind.field(BYTES).type)

    schema = table.schema_arrow
    found = {field.name: f"{field.name}.{BYTES}" for field in schema if is_image(field.type)}
    found |= {field.name: field.name for field in schema if holds_bytes(field.type)}
    if IMAGE not in found and len(found) != 1:
        got = ", ".join(found) or ", ".join(schema.names)
        raise DataError(f"{file}: expected a column {IMAGE!r} with the bytes of images, got {got:.200}")
    return found.get(IMAGE) or next(iter(found.values()))


def _check_size(file: Path, table: ParquetFile) -> None:
    """Refuse a file that would become absurdly large, before anything is unpacked."""
    packed, facts = file.stat().st_size, table.metadata
    size = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    if size > max(FREE_BYTES, MAX_RATIO * packed) or facts.num_rows > packed:
        raise DataError(
            f"{file}: expected content of at most {MAX_RATIO} times the file's {packed:,} bytes, got {size:,} in "
            f"{facts.num_rows:,} rows"
        )
