"""Settings as JSON and back: the dataclasses of `sra.config`, and those of the alignments by their `kind`."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from sra.alignment.registry import AlignSettings, settings_class
from sra.common.errors import ConfigError, did_you_mean

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Dataclasses and tuples as JSON-ready dicts and lists; `align` carries its `kind`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    return value


def from_plain(cls: type[T], plain: dict[str, Any]) -> T:
    """The inverse of `to_plain` for a dataclass of settings.

    Raises:
        ConfigError: an unknown key, or a combination that the class refuses.
    """
    hints = typing.get_type_hints(cls)
    for key in plain:
        if key not in hints:
            raise ConfigError(f"{cls.__name__}: unknown key {key!r}{did_you_mean(key, hints)}")
    return cls(**{key: _restore(hints[key], value) for key, value in plain.items()})


def _restore(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if hint is AlignSettings and isinstance(value, dict):
        return from_plain(settings_class(value["kind"]), value)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arguments = typing.get_args(hint)
        if isinstance(value, dict):
            settings = [a for a in arguments if dataclasses.is_dataclass(a)]
            return _restore(settings[0], value) if settings else value
        return tuple(value) if isinstance(value, list) else value
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value)
    return tuple(value) if isinstance(value, list) else value
