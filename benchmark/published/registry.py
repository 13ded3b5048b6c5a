"""`published.yaml`, read once and checked completely. A row without a source or a protocol does not load."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from benchmark.assets.catalogue import catalogue
from benchmark.published.schema import METRICS, Claim, Protocol, Registry, RegistryError, Row
from sra.common.errors import expected, one_of
from sra.config import ALIGNMENTS, SAMPLERS, NoDefaultError, parse_model_name

REGISTRY = Path(__file__).with_name("published.yaml")


def load_registry(path: Path = REGISTRY) -> Registry:
    """Read and check a registry.

    Raises:
        RegistryError: not YAML, an unknown key, a row without source or protocol, an undefined name.
    """
    return _load(path.resolve())


@functools.lru_cache(maxsize=4)
def _load(path: Path) -> Registry:
    try:
        document, lines = _parse(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RegistryError(f"{path}: expected YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise RegistryError(expected(str(path), "a mapping", document))
    for section in ("protocols", "training"):
        named = document.get(section) or {}
        document[section] = {name: _inherited(path, named, name) for name in named}
    rows = document.get("rows")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("align"), dict):
            row["align"] = _as_numbers(row["align"])
    registry = _validate(path, document, lines)
    _check_names(path, registry, lines)
    return registry


def _check_names(path: Path, registry: Registry, lines: list[int]) -> None:
    """Ids are unique, and every name that a row, a protocol or a claim uses is defined."""
    if registry.metrics != METRICS:
        raise RegistryError(expected(f"{path}: metrics", str(list(METRICS)), list(registry.metrics)))
    for name, protocol in registry.protocols.items():
        with _refused_at(f"{path}: protocol {name!r}"):
            _check_protocol(protocol)
    seen: set[str] = set()
    for row, line in zip(registry.rows, lines, strict=True):
        with _refused_at(f"{path}: line {line}: row {row.id!r}"):
            _check_row(registry, row)
            _once(row.id, seen)
    for claim in registry.claims:
        with _refused_at(f"{path}: claim {claim.id!r}"):
            _check_claim(registry, claim)
            _once(claim.id, seen)
    for spread in registry.spread:
        with _refused_at(f"{path}: spread of {spread.model}"):
            parse_model_name(spread.model if "-" in spread.model else f"{spread.model}-XL")
            _known("align", spread.align or "none", ("none", *alignments_of(registry)))
    with _refused_at(f"{path}: unprinted, cost_source"):
        for paper in (*registry.cost_source.papers, *(paper for entry in registry.unprinted for paper in entry.papers)):
            _known("papers", paper, registry.papers)
    with _refused_at(f"{path}: unsettled_alignments"):
        for name in registry.unsettled_alignments:
            _known("align", name, alignments_of(registry))


def alignments_of(registry: Registry) -> tuple[str, ...]:
    """Names of alignments that a row may have: those of this suite, and those of other code."""
    return (*ALIGNMENTS, *registry.foreign_alignments)


def _once(name: str, seen: set[str]) -> None:
    if name in seen:
        raise ValueError("id: already used by an earlier row or claim")
    seen.add(name)


@contextmanager
def _refused_at(where: str) -> Iterator[None]:
    """Say where what is wrong was found."""
    try:
        yield
    except ValueError as error:
        raise RegistryError(f"{where}: {error}") from error


def _check_protocol(protocol: Protocol) -> None:
    """Its samplers exist and fit its networks, and a note explains what is open."""
    for sampler in protocol.samplers or ([] if protocol.sampler is None else [""]):
        _known("sampler", sampler, [s for s in SAMPLERS if (s == "ddpm") == (protocol.family == "dit")])
    if (protocol.unknown or protocol.allowance) and not protocol.note:
        what = f"why {protocol.unknown[0]} is null" if protocol.unknown else "the source of its allowance"
        raise ValueError(f"expected a note with {what}")


# libyaml if it is installed: `plan` must start fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Keeps decimal numbers as text, so that 29.10 keeps its last digit."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _parse(text: str) -> tuple[Any, list[int]]:
    """The document, and the line of each of its rows, counted from 1."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        rows = next((value for key, value in pairs if key.value == "rows"), None)
        lines = [node.start_mark.line + 1 for node in rows.value] if isinstance(rows, yaml.SequenceNode) else []
        return (loader.construct_document(root) if root is not None else None), lines
    finally:
        loader.dispose()


def _as_numbers(value: Any) -> Any:
    """Settings are numbers, not printed digits."""
    if isinstance(value, dict):
        return {key: _as_numbers(inner) for key, inner in value.items()}
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _inherited(path: Path, named: dict[str, Any], name: str, seen: tuple[str, ...] = ()) -> Any:
    """The settings of a name, completed by those that it extends."""
    settings = named.get(name)
    if settings is None:
        raise RegistryError(one_of(f"{path}: {seen[-1]}: extends", name, named))
    if name in seen:
        raise RegistryError(f"{path}: {' -> '.join((*seen, name))} extends itself")
    if not isinstance(settings, dict) or "extends" not in settings:
        return settings
    base = _inherited(path, named, str(settings["extends"]), (*seen, name))
    return {**base, **{key: value for key, value in settings.items() if key != "extends"}}


def _validate(path: Path, document: dict[str, Any], lines: list[int]) -> Registry:
    try:
        return Registry.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        place, where = [str(part) for part in problem["loc"]], f"{path}: "
        if len(place) > 1 and place[0] in ("rows", "claims", "spread") and place[1].isdigit():
            entry = document[place[0]][int(place[1])]
            name = entry.get("id") or entry.get("model") if isinstance(entry, dict) else "?"
            line = f"line {lines[int(place[1])]}: " if place[0] == "rows" else ""
            where, place = f"{where}{line}{place[0].removesuffix('s')} {name!r}: ", place[2:]
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if problem["type"] != "value_error" and isinstance(problem["input"], (str, int)):
            message += f", got {problem['input']!r}"
        raise RegistryError(f"{where}{'.'.join(place) + ': ' if place else ''}{message}") from error


def _check_claim(registry: Registry, claim: Claim) -> None:
    """Both rows exist, print the metric, and are about the same network, length and number of images."""
    rows = {row.id: row for row in registry.rows}
    for key, name in (("without", claim.without), ("with", claim.with_)):
        if name not in rows:
            raise ValueError(expected(key, "the id of a row", name, rows))
        _known(f"metric of {name}", claim.metric, rows[name].printed)
    one, other = (
        (row.model, row.resolution, registry.steps(row), registry.images(row))
        for row in (rows[claim.without], rows[claim.with_])
    )
    if one != other or claim.without == claim.with_:
        what = "another row of the same model, resolution, steps and images as `without`"
        raise ValueError(expected("with", what, claim.with_))


def _known(key: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(one_of(key, name, known))


def _check_alignment(registry: Registry, row: Row) -> None:
    """The settings that a row names are those of its alignment; what its paper does not print may be missing."""
    if row.align_kind not in ALIGNMENTS:
        return
    foreign = registry.foreign_settings.get(row.align_kind, ())
    if isinstance(row.align, dict):
        row = row.model_copy(update={"align": {k: v for k, v in row.align.items() if k not in foreign}})
    with suppress(NoDefaultError):
        row.alignment()


def _check_row(registry: Registry, row: Row) -> None:
    """Every name that a row uses is defined, and it says what its protocol needs."""
    _known("protocol", row.protocol, registry.protocols)
    for paper in row.papers:
        _known("papers", paper, registry.papers)
    if row.training:
        _known("training", row.training, registry.training)
    if row.align_kind:
        _known("align", row.align_kind, alignments_of(registry))
        _check_alignment(registry, row)
    files = {file for asset in catalogue().values() for file in asset.files}
    if row.checkpoint and row.checkpoint not in files:
        raise ValueError(expected("checkpoint", "a file of an asset", row.checkpoint, files))
    if registry.protocols[row.protocol].scores_only:
        if not row.samples:
            raise ValueError("samples: expected a file name, as the protocol scores a given file")
        return
    if (row.steps is None) == (row.epochs is None):
        raise ValueError("steps and epochs: expected exactly one of them")
    if row.training is None:
        raise ValueError("training: expected the name of the settings that the network was trained with")
    family, _, _ = row.size
    if family != (registry.protocols[row.protocol].family or family):
        raise ValueError(expected("protocol", f"one of family {family!r}", row.protocol))
