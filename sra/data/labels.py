"""`dataset.json`: names and classes of a data set. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from sra.common.errors import DataError
from sra.config import SPLITS


def parse_labels(text: str | bytes, where: str) -> dict[str, int]:
    """Names to class indices, in the file's order.

    Args:
        text: JSON `{"labels": [[name, class index], ...]}`.
        where: the file, for messages.

    Raises:
        DataError: not of that form, a class that is no integer from 0, a name listed twice.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: expected JSON, got: {error}") from error
    entries = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        found = "nothing" if not entries else type(entries).__name__
        raise DataError(f"{where}: labels: expected a list of [name, class index], got {found}")
    table: dict[str, int] = {}
    for entry in entries:
        name, label = _pair(entry, where)
        if name in table:
            raise DataError(f"{where}: labels: expected each name once, got {name} twice")
        table[name] = label
    return table


def _pair(entry: object, where: str) -> tuple[str, int]:
    match entry:
        case [str(name), int(label)] if not isinstance(label, bool) and label >= 0:
            return name, label
    raise DataError(f"{where}: labels: expected [name, class index from 0], got {json.dumps(entry)[:80]}")


def read_labels(path: Path) -> dict[str, int]:
    """`parse_labels` of a file.

    Raises:
        DataError: also where the file cannot be read.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_labels(text, str(path))


def check_names(listed: Collection[str], present: Collection[str], where: str) -> None:
    """Refuse files without a label and labels without a file.

    Args:
        listed: names in `dataset.json`.
        present: names of the files.
        where: the data set, for messages.

    Raises:
        DataError: one of them, by name, and how many.
    """
    for names, problem in (
        (set(present) - set(listed), "expected a label in dataset.json for"),
        (set(listed) - set(present), "expected the file of dataset.json"),
    ):
        if names:
            raise DataError(f"{where}: {problem} {min(names)} ({len(names)} in all)")


def check_split(split: str, images: int, classes: int, where: str) -> None:
    """Refuse a data set that is not the split it claims to be.

    Raises:
        DataError: another number of images or classes.
    """
    known = SPLITS.get(split, (images, classes))
    if (images, classes) != known:
        raise DataError(
            f"{where}: expected {known[0]} images in {known[1]} classes (split {split}), got {images} in {classes}"
        )
