"""Reading of YAML, settings, records and command lines, with one line for bad input. Torch-free."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, TypeAdapter, ValidationError

from sra.common.errors import ConfigError, UserError, did_you_mean, expected
from sra.common.files import home_path, load_json

T = TypeVar("T")
MAX_YAML_LEVELS, MAX_YAML_NODES = 50, 100_000
"""A manifest has six levels and a thousand values."""
MAX_SHOWN = 120
"""Characters of a value that are shown in an error."""
# Read by pydantic from a plain dataclass: unknown keys are errors, docstrings under fields are descriptions.
STRICT = {"extra": "forbid", "use_attribute_docstrings": True, "allow_inf_nan": False}
CONTAINERS = (typing.Union, types.UnionType, dict, list, tuple)
"""Type hints that may contain settings."""


@cache
def adapter(cls: type) -> TypeAdapter[Any]:
    """The adapter of a class, cached: building one takes as long as the rest of a plan."""
    return TypeAdapter(cls)


IN_HOME = BeforeValidator(lambda value: str(home_path(value)) if str(value).startswith("~") else value)
"""Annotation of a setting that is a path: `~` is the home folder."""


def matching(pattern: str, what: str) -> AfterValidator:
    """Annotation of a setting whose text must match a regular expression.

    Args:
        pattern: of the whole text.
        what: the allowed values in words, for the error.
    """

    def check(value: T) -> T:
        if not re.fullmatch(pattern, str(value)):
            raise ValueError(f"expected {what}, got {value!r}")
        return value

    return AfterValidator(check)


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser that raises one line instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{self.prog}: {message}")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice in a mapping, deep nesting, and numbers in base 8 and 60."""

    levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.levels += 1
        if self.levels > MAX_YAML_LEVELS:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_YAML_LEVELS} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)

    def decimal(self, node: yaml.ScalarNode) -> int | float:
        """A number; YAML 1.1 reads 010 in base 8 and 13:20 in base 60."""
        if re.match(r"[-+]?0[0-7_]+$|.*:", node.value):
            problem = f"{node.value} is a number in base {60 if ':' in node.value else 8}, unless it is in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        is_whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)


for tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", _Loader.decimal)
# YAML 1.1 takes 4e5 and 1e-4 for text, as they have no point.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Parse a YAML document; aliases become copies that can be changed separately.

    Raises:
        yaml.YAMLError: not YAML, a key that stands twice, an alias that holds itself, a value that is none, or too many
            levels or values.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_YAML_NODES:
            raise yaml.YAMLError(f"more than {MAX_YAML_NODES:,} values, aliases expanded")
        return plain_copy(loader.construct_document(node))
    except ValueError as error:  # a date or a number that is none
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def yaml_problem(error: Exception) -> str:
    """One line for an error of `parse_yaml` or of decoding its text: where, and what."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1} " if mark else ""
    return f"{where}expected YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Number of nodes in a node, each alias counted as what it stands for.

    Args:
        node: from the composer, which shares the nodes of aliases.
        sizes: of the nodes seen so far; 0 for those that hold this one.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if node not in sizes:
        sizes[node] = 0
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes[node] = 1 + sum(_size(part, sizes) for part in parts)
    elif not sizes[node]:
        raise yaml.MarkedYAMLError(problem="an alias that holds itself", problem_mark=node.start_mark)
    return sizes[node]


def plain_copy(value: Any) -> Any:
    """Copy mappings and lists, recursively."""
    if isinstance(value, dict):
        return {k: plain_copy(v) for k, v in value.items()}
    return [plain_copy(v) for v in value] if isinstance(value, list) else value


def read_record(cls: type[T], path: Path) -> T | None:
    """The record in a JSON file; None where there is none.

    Args:
        cls: a dataclass or a pydantic model.
        path: of the file.

    Raises:
        UserError: a damaged file, by its first key that does not fit.
    """
    document = load_json(path)
    return None if document is None else validated(cls, document, str(path))


def sound_record(cls: type[T], path: Path) -> T | None:
    """`read_record`, and None for a damaged file: for what a run writes again by itself."""
    try:
        return read_record(cls, path)
    except UserError:
        return None


def validated(cls: type[T], document: Any, where: str) -> T:
    """Settings or a record of a class from a plain document.

    Args:
        cls: a dataclass or a pydantic model.
        document: plain mappings and lists.
        where: file or option, for the error.

    Raises:
        UserError: bad input, in one line.
    """
    if (key := boolean_as_number(cls, document)) is not None:
        raise UserError(f"{where}: {key}: expected a number, got a boolean")
    try:
        # mypy takes the hash of the instances for that of the class.
        checked: T = adapter(cls).validate_python(document)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UserError(f"{where}: {one_line(cls, error)}") from error
    return checked


def json_text(record: BaseModel, **options: Any) -> str:
    """The JSON text of a record; `options` are those of pydantic's `model_dump`."""
    try:
        return record.model_dump_json(indent=2, **options)
    except ValueError:
        # A file name that is not UTF-8, which pydantic does not write.
        return json.dumps(record.model_dump(mode="json", **options), indent=2)


def boolean_as_number(hint: Any, plain: Any, key: str = "") -> str | None:
    """Key of the first boolean of a plain document where there must be a number (pydantic takes `true` for 1), or None.

    Args:
        hint: a class, or another type of the document.
        plain: the document.
        key: of the document.
    """
    if isinstance(plain, bool):
        types_ = set(_leaves(hint))
        return key if types_ & {int, float} and bool not in types_ else None
    if isinstance(plain, dict):
        hints = {name: part for cls in _settings_in(hint) for name, part in typing.get_type_hints(cls).items()}
        parts = [(hints.get(n, hint), value, f"{key}.{n}" if key else str(n)) for n, value in plain.items()]
    else:
        parts = [(hint, value, key) for value in plain] if isinstance(plain, list) else []
    return next((found for part in parts if (found := boolean_as_number(*part)) is not None), None)


def _leaves(hint: Any) -> list[Any]:
    """The types in a type hint, however deep."""
    arguments = typing.get_args(hint)
    return [leaf for part in arguments for leaf in _leaves(part)] if arguments else [hint]


def one_line(cls: type, error: ValidationError) -> str:
    """Describe the first error: key, what is expected, what was given, the nearest allowed name."""
    problems = error.errors()
    # Of the name of a size and its own dimensions, a mapping is meant as the second.
    is_name = [p["type"] == "literal_error" and isinstance(p["input"], dict) for p in problems]
    problem = problems[is_name.index(False) if False in is_name else 0]
    location, keys = _location(cls, [str(part) for part in problem["loc"]])
    key = ".".join(location)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden") and location:
        *parents, unknown = location
        return prefixed(".".join(parents), expected("", f"one of the keys {', '.join(keys)}", unknown, keys)[2:])
    if problem["type"] == "missing":
        return f"{key}: missing, it has no default"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return prefixed(key, message)
    message, got = (
        re.split(", (?:got|unable) ", message.replace("Input should be", "expected", 1))[0],
        repr(problem["input"]),
    )
    got = got if len(got) <= MAX_SHOWN else f"{got[:MAX_SHOWN]}..."
    near = did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", message))
    return prefixed(key, f"{message[0].lower() + message[1:]}, got {got}{near}")


def prefixed(section: str, message: str) -> str:
    """Name the section of an error: `train` and `lr: expected ...` give `train.lr: expected ...`."""
    if not section:
        return message
    return f"{section}.{message}" if re.match(r"[\w.]+: ", message) else f"{section}: {message}"


def _location(cls: type, loc: list[str]) -> tuple[list[str], list[str]]:
    """Keys that lead to an error, without pydantic's names of alternatives; and the keys beside the last of them."""
    current, alternatives, location = cls, [cls], []
    for part in loc:
        if re.fullmatch(r"[\w./-]+", part) and part not in [one.__name__ for one in alternatives]:
            location.append(part)
            hint = typing.get_type_hints(current).get(part) if _keys(current) else None
            if alternatives := _settings_in(hint):
                current = alternatives[0]
    return location, _keys(current)


def _settings_in(hint: Any) -> list[type]:
    """Classes of settings and records that a type hint names, however deep."""
    if typing.get_origin(hint) in CONTAINERS:
        return [found for part in typing.get_args(hint) for found in _settings_in(part)]
    return [hint] if isinstance(hint, type) and _keys(hint) else []


def _keys(cls: type) -> list[str]:
    """Keys of settings or a record; none of another class."""
    if dataclasses.is_dataclass(cls):
        return [f.name for f in dataclasses.fields(cls)]
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        return [field.alias or name for name, field in cls.model_fields.items()]
    return []
