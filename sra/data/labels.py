"""Classes of a data set: from `dataset.json` or from its class folders. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sra.common.errors import DataError
from sra.common.files import parse_json
from sra.common.listing import check_parts, refuse_folders
from sra.config import SPLITS

IMAGENET_PARTS = {50_000: "validation", 100_000: "test"}
"""Sizes of the other parts of ImageNet-1K (ILSVRC 2012)."""


def parse_labels(text: str | bytes, where: str) -> dict[str, int]:
    """Names to class indices, in the file's order.

    Args:
        text: JSON `{"labels": [[name, class index], ...]}`.
        where: the file, for messages.

    Raises:
        DataError: not of that form, a class that is no integer from 0, a name listed twice.
    """
    document = parse_json(text, where)
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


def folder_labels(names: Sequence[str], folders: Iterable[str], place: Path) -> dict[str, int]:
    """Labels by class folder, in the order of torchvision's `ImageFolder`.

    Args:
        names: of the images, relative to the data set.
        folders: first parts of the names of everything, images or not.
        place: path of the data set.

    Raises:
        DataError: an image outside of the folders, folders that are no classes, a class without images.
    """
    where = f"data.images {place}"
    loose = next((name for name in names if "/" not in name), None)
    if loose is not None:
        raise DataError(f"{where}: expected dataset.json or class folders, got {loose} outside of them")
    tops = sorted({name.split("/")[0] for name in names})
    below = {name.split("/")[1] for name in names if name.count("/") > 1}
    check_parts(names, place, where)
    if len(tops) == 1 and len(below) > 1:
        refuse_folders(tops, place, where, tops[0])
    empty = sorted(set(folders).difference(tops))
    if empty:
        raise DataError(f"{where}: expected images in each class folder, got none in {_some(empty)}")
    return {top: label for label, top in enumerate(tops)}


def folders_of_labels(names: Iterable[str], labels: Iterable[int]) -> dict[int, str]:
    """Class folder of each label; empty unless every label has one folder and every folder one label."""
    pairs = {(label, name.split("/")[0] if "/" in name else "") for name, label in zip(names, labels, strict=True)}
    found = dict(sorted(pairs))
    single = len(found) == len(pairs) == len(set(found.values())) and "" not in found.values()
    return found if single else {}


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are."""
    return ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")


def check_split(
    split: str, images: int, classes: int, where: str, folders: Collection[str] = (), note: str | None = None
) -> None:
    """Refuse a data set that is not the split it claims to be.

    Args:
        split: its name.
        images: number found.
        classes: number found.
        where: the data set, for messages.
        folders: names of the classes, where they are known.
        note: what was left out.

    Raises:
        DataError: another number of images or classes, with the likely reason.
    """
    known = SPLITS.get(split, (images, classes))
    if (images, classes) != known:
        wanted = f"expected {known[0]} images in {known[1]} classes (split {split})"
        reasons = [reason for reason in (_reason(images, known[0], folders), note) if reason]
        raise DataError(f"{where}: {wanted}, got {images} in {classes}; {'; '.join(reasons)}")


def _reason(images: int, expected: int, folders: Collection[str]) -> str:
    """Why a data set is probably not ImageNet's training set."""
    imagenet = (Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="ascii").split()
    if images in IMAGENET_PARTS:
        return f"{images} is the size of ImageNet's {IMAGENET_PARTS[images]} set"
    missing = [name for name in imagenet if name not in folders] if folders else []
    if len(missing) == len(imagenet):
        return f"its folders are not named as ImageNet's classes, such as {imagenet[0]}"
    if missing:
        return f"no images of the classes {_some(missing)}"
    if images < expected:
        return f"{expected - images} are missing: an unfinished download or copy?"
    return f"{images - expected} too many: copies, or images of another set?"
