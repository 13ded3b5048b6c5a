"""`published.yaml`: read once and checked whole. A row without a source or a protocol does not load."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import TypeAdapter, ValidationError

from benchmark.published.schema import METRICS, Registry, RegistryError, Row
from sra.common.errors import did_you_mean

REGISTRY = Path(__file__).with_name("published.yaml")


def load_registry(path: Path = REGISTRY) -> Registry:
    """Read and check a registry.

    Raises:
        RegistryError: not YAML, an unknown key, a row without source or protocol, a name that points nowhere.
    """
    return _load(path.resolve())


@functools.lru_cache(maxsize=4)
def _load(path: Path) -> Registry:
    try:
        text = path.read_text(encoding="utf-8")
        document, lines = _parsed(text)
    except (OSError, yaml.YAMLError) as error:
        raise RegistryError(f"{path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise RegistryError(f"{path}: a mapping is needed")
    for section in ("protocols", "training"):
        named = document.get(section) or {}
        document[section] = {name: _inherited(path, named, name) for name in named}
    for row in document.get("rows") or []:
        if isinstance(row, dict) and isinstance(row.get("align"), dict):
            row["align"] = _settings(row["align"])
    registry = _validated(path, document, lines)
    _check_names(path, registry, lines)
    for name, protocol in registry.protocols.items():
        if protocol.unknown and not protocol.note:
            raise RegistryError(f"{path}: protocol {name!r}: {protocol.unknown[0]} is null; note must say why")
    return registry


# In C where libyaml is there: a plan waits for it.
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Printed(_Safe):  # type: ignore[misc]
    """Decimal numbers stay text: 29.10 keeps its last digit."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _settings(value: Any) -> Any:
    """Settings are numbers, not printed digits."""
    if isinstance(value, dict):
        return {key: _settings(inner) for key, inner in value.items()}
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _parsed(text: str) -> tuple[Any, list[int]]:
    """The document, and the line of each of its rows."""
    loader = _Printed(text)
    try:
        root = loader.get_single_node()
        return (loader.construct_document(root) if root is not None else None), _row_lines(root)
    finally:
        loader.dispose()


def _row_lines(root: yaml.Node | None) -> list[int]:
    """Line of each row, counted from 1."""
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    rows = next((value for key, value in pairs if key.value == "rows"), None)
    return [node.start_mark.line + 1 for node in rows.value] if isinstance(rows, yaml.SequenceNode) else []


def _inherited(path: Path, named: dict[str, Any], name: str, seen: tuple[str, ...] = ()) -> Any:
    """The settings of a name with those that it extends filled in."""
    settings = named.get(name)
    if settings is None:
        raise RegistryError(f"{path}: {seen[-1]} extends {name!r}, which is not there{did_you_mean(name, named)}")
    if name in seen:
        raise RegistryError(f"{path}: {' -> '.join((*seen, name))} extends itself")
    if not isinstance(settings, dict) or "extends" not in settings:
        return settings
    base = _inherited(path, named, str(settings["extends"]), (*seen, name))
    # A note explains its own protocol's settings, so it is not passed on where one is given.
    return {**base, **{key: value for key, value in settings.items() if key != "extends"}}


def _validated(path: Path, document: dict[str, Any], lines: list[int]) -> Registry:
    try:
        return TypeAdapter(Registry).validate_python(document)
    except ValidationError as error:
        problem = error.errors()[0]
        place = [str(part) for part in problem["loc"]]
        where = f"{path}: "
        if len(place) > 1 and place[0] == "rows" and place[1].isdigit():
            number = int(place[1])
            row = document["rows"][number]
            name = row.get("id", "?") if isinstance(row, dict) else "?"
            where += f"line {lines[number]}: row {name!r}: "
            place = place[2:]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] != "value_error" and isinstance(problem["input"], (str, int)):
            message += f", found {problem['input']!r}"
        raise RegistryError(f"{where}{'.'.join(place) + ': ' if place else ''}{message}") from error


def _check_names(path: Path, registry: Registry, lines: list[int]) -> None:
    """Ids are unique, and every name that a row uses is defined."""
    if registry.metrics != METRICS:
        raise RegistryError(f"{path}: metrics: found {list(registry.metrics)}, needed is {list(METRICS)}")
    seen: set[str] = set()
    for row, line in zip(registry.rows, lines, strict=True):
        try:
            _check_row(registry, row)
            if row.id in seen:
                raise ValueError("this id is taken by an earlier row")
        except ValueError as error:
            raise RegistryError(f"{path}: line {line}: row {row.id!r}: {error}") from error
        seen.add(row.id)


def _check_row(registry: Registry, row: Row) -> None:
    names: list[tuple[str, str, Iterable[str]]] = [("protocol", row.protocol, registry.protocols)]
    names += [("papers", paper, registry.papers) for paper in row.papers]
    names += [("training", row.training, registry.training)] if row.training else []
    for key, name, known in names:
        if name not in known:
            raise ValueError(f"{key}: unknown name {name!r}{did_you_mean(name, known)}")
    if registry.protocols[row.protocol].scores_only:
        if not row.samples:
            raise ValueError("samples: missing, this protocol scores a given file")
        return
    if (row.steps is None) == (row.epochs is None):
        raise ValueError("exactly one of steps and epochs says how long it was trained")
    if row.training is None:
        raise ValueError("training: missing, it says how the network was trained")
    if bool(row.checkpoint) != bool(row.convention):
        raise ValueError("checkpoint and convention belong together")
    row.size  # noqa: B018 - a name that is no model raises
