"""A manifest before validation: YAML, overrides, shorthands and paths expanded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from benchmark.assets import catalogue
from sra.common.errors import UserError, did_you_mean, one_of
from sra.common.files import home_path
from sra.common.validation import parse_yaml, plain_copy, yaml_problem

# Environment variables and `~` are expanded in these.
PATH_FIELDS = {("data", "images"), ("data", "latents"), ("codec", "path"), ("score", "reference"), ("score", "graph")}


PACKAGE = Path(__file__).parents[1]
SHIPPED = PACKAGE / "manifests" if (PACKAGE / "manifests").is_dir() else PACKAGE.parent / "manifests"
"""The suite's own manifests: inside an installed package, beside it in a checkout."""


class ManifestError(UserError):
    """A mistake in a manifest: file, key, what is allowed, what was found."""


def read(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; `manifests/NAME.yaml` is the suite's own where there is no such file.

    Raises:
        ManifestError: no such file, not YAML, or not a mapping.
    """
    if not path.is_file() and path.parent == Path("manifests") and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ManifestError(f"{path}: expected a manifest, got no such file{did_you_mean(path.name, siblings)}")
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {yaml_problem(error)}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{path}: expected a mapping of keys, got {type(document).__name__}")
    return document


NEW_VARIANT = (["align"], ["checkpoint"], ["samples"])
"""What an override may give first to a variant that it adds, unless it gives all: else the name is a mistake."""


def override(document: dict[str, Any], item: str) -> None:
    """Set one key, in place, from `a.b=value`; the value is YAML.

    Raises:
        ManifestError: an item of another form, or a variant that the manifest does not have.
    """
    key, separator, text = item.partition("=")
    if not separator or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ManifestError(f"--set {item!r}: expected key.path=value")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ManifestError(f"--set {item!r}: {yaml_problem(error)}") from error
    *parents, last = key.split(".")
    variants = document.get("variants")
    if parents[:1] == ["variants"] and isinstance(variants, dict):
        name, *keys = [*parents, last][1:]
        if name not in variants and keys[:1] not in NEW_VARIANT and not (keys == [] and isinstance(value, dict)):
            raise ManifestError(one_of(f"--set {item!r}: variants", name, variants))
    node = document
    for parent in parents:
        child = node.get(parent)
        if not isinstance(child, dict):
            child = {"kind": child} if parent == "align" and isinstance(child, str) else {}
            node[parent] = child
        node = child
    node[last] = value


def expand(document: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with shorthands (`ema: 0.99`) and environment variables in paths expanded.

    Raises:
        ManifestError: an asset does not exist.
    """
    copy: dict[str, Any] = plain_copy(document)
    variants = copy.get("variants")
    parts = {"": copy}
    if isinstance(variants, dict):
        copy["variants"] = {k: {} if v is None else v for k, v in variants.items()}
        parts |= {f"variants.{k}.": v for k, v in copy["variants"].items() if isinstance(v, dict)}
    for where, part in parts.items():
        _expand(part, where)
    return copy


def _expand(part: dict[str, Any], where: str) -> None:
    for section, key in PATH_FIELDS:
        node = part.get(section)
        if isinstance(node, dict) and isinstance(node.get(key), str):
            node[key] = _place(node[key], f"{where}{section}.{key}")
    for key in ("checkpoint", "samples"):
        if isinstance(part.get(key), str):
            part[key] = _place(part[key], f"{where}{key}")
    train = part.get("train")
    if isinstance(train, dict) and isinstance(train.get("ema"), (int, float)) and not isinstance(train["ema"], bool):
        train["ema"] = {"decay": train["ema"]}


def _place(text: str, where: str) -> str:
    """Expand a path; an unset variable and `asset:NAME` stay, and a plan lists them if they are missing."""
    if text.startswith(catalogue.PREFIX):
        try:
            catalogue.find(text.removeprefix(catalogue.PREFIX))
        except catalogue.AssetError as error:
            raise ManifestError(f"{where}: {error}") from error
    expanded = os.path.expandvars(text)
    return str(home_path(expanded)) if expanded.startswith("~") else expanded
