"""Reading of YAML, settings and command lines, with one line for bad input. Torch-free."""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from functools import cache
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from sra.common.errors import ConfigError, UserError, did_you_mean
from sra.common.files import home_path

T = TypeVar("T")
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
    """Safe YAML that refuses a key given twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 4e5 and 1e-4 for text, as they have no point.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Parse a YAML document; aliases become copies that can be changed separately.

    Raises:
        yaml.YAMLError: not YAML, a key that stands twice, or an alias that holds itself.
    """
    try:
        return plain_copy(yaml.load(text, _Loader))  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise yaml.YAMLError("an alias that holds itself") from error


def plain_copy(value: Any) -> Any:
    """Copy mappings and lists, recursively."""
    if isinstance(value, dict):
        return {k: plain_copy(v) for k, v in value.items()}
    return [plain_copy(v) for v in value] if isinstance(value, list) else value


def validated(cls: type[T], document: Any, where: str, name: str) -> T:
    """Settings of a class from a plain document.

    Args:
        cls: a frozen dataclass that refuses unknown keys.
        document: plain mappings and lists.
        where: file or option, for the error.
        name: of the mapping, for the error.

    Raises:
        UserError: bad input, in one line.
    """
    try:
        # mypy takes the hash of the instances for that of the class.
        checked: T = adapter(cls).validate_python(document)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UserError(f"{where}: {one_line(cls, error, name)}") from error
    return checked


def boolean_as_number(plain: Any, checked: Any, key: str = "") -> str | None:
    """Key of the first boolean of a plain document that became a number (pydantic takes `true` for 1), or None."""
    if isinstance(plain, bool):
        return key if isinstance(checked, (int, float)) and not isinstance(checked, bool) else None
    if isinstance(plain, dict):
        items = checked if isinstance(checked, dict) else getattr(checked, "__dict__", {})
        parts = [(value, items.get(name), f"{key}.{name}" if key else str(name)) for name, value in plain.items()]
    elif isinstance(plain, list) and isinstance(checked, (list, tuple)):
        parts = [(value, item, key) for value, item in zip(plain, checked, strict=False)]
    else:
        return None
    return next((found for part in parts if (found := boolean_as_number(*part)) is not None), None)


def one_line(cls: type, error: ValidationError, name: str) -> str:
    """Describe the first error: key, what is expected, what was given, the nearest name of an unknown key."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"] if re.fullmatch(r"[\w./-]+", str(part))]
    owner, keys = _owner(cls, [str(part) for part in problem["loc"]], name)
    key = ".".join(location)
    if problem["type"] == "unexpected_keyword_argument":
        unknown = location[-1]
        return f"unknown key {key!r} in {owner}{did_you_mean(unknown, keys)}; allowed: {', '.join(keys)}"
    if problem["type"] == "missing":
        return f"{key or owner}: missing, it has no default"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return prefixed(key, message)
    message = message.replace("Input should be", "expected", 1)
    return f"{key + ': ' if key else ''}{message[0].lower() + message[1:]}, got {problem['input']!r}"


def prefixed(section: str, message: str) -> str:
    """Name the section of an error: `train` and `lr: expected ...` give `train.lr: expected ...`."""
    if not section:
        return message
    return f"{section}.{message}" if re.match(r"[\w.]+: ", message) else f"{section}: {message}"


def _owner(cls: type, location: list[str], name: str) -> tuple[str, list[str]]:
    """Name and keys of the settings that a key belongs to."""
    current = cls
    for part in location[:-1]:
        hint = typing.get_type_hints(current).get(part) if dataclasses.is_dataclass(current) else None
        if found := _settings_in(hint):
            name, current = part, found[0]
    return name, [f.name for f in dataclasses.fields(current)]


def _settings_in(hint: Any) -> list[type]:
    """Settings classes that a type hint names, however deep."""
    if typing.get_origin(hint) in CONTAINERS:
        return [found for part in typing.get_args(hint) for found in _settings_in(part)]
    return [hint] if isinstance(hint, type) and dataclasses.is_dataclass(hint) else []
