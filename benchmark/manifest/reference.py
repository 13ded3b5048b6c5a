"""Every key of a manifest as Markdown: type, default, meaning, from the same classes that read it."""

from __future__ import annotations

import json
from typing import Any

from benchmark.manifest.schema import schema

SECTIONS = {
    "DataConfig": "data",
    "CodecConfig": "codec",
    "ModelConfig": "model",
    "Size": "model.size, unless a name",
    "TrainConfig": "train",
    "EmaConfig": "train.ema",
    "SampleConfig": "sample",
    "ScoreConfig": "score",
    "Variant": "variants.NAME",
}
"""Heading of each class of the schema."""


def reference() -> str:
    """Tables of all keys: those of the manifest and of each section."""
    document = schema()
    parts = [_table("Top level", document)]
    parts += [_table(f"`{heading}`", document["$defs"][name]) for name, heading in SECTIONS.items()]
    return "\n".join(parts)


def _table(heading: str, section: dict[str, Any]) -> str:
    required = section.get("required", ())
    lines = [f"## {heading}", "", *filter(None, [section.get("description", "").replace("\n", " ")]), ""]
    lines += ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, found in section["properties"].items():
        default = "see the section"
        if key in required or "default" in found:
            default = "required" if key in required else _code(found["default"])
        cells = (f"`{key}`", _values(found), default, found["description"])
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value not in (None, [], {}) else "none"


def _values(found: dict[str, Any]) -> str:
    """The values that a key takes, in words."""
    if "anyOf" in found:
        return ", or ".join(dict.fromkeys(_values(one) for one in found["anyOf"] if one.get("type") != "null"))
    if "$ref" in found:
        return f"section `{SECTIONS[found['$ref'].rpartition('/')[2]].split(',')[0]}`"
    if "enum" in found or "const" in found:
        return ", ".join(_code(value) for value in found.get("enum", [found.get("const")]))
    if found.get("type") == "array":
        items = found.get("prefixItems") or [found.get("items", {})]
        return "list of " + " and ".join(dict.fromkeys(_values(item) for item in items))
    if found.get("type") == "object" and isinstance(found.get("additionalProperties"), dict):
        return f"mapping to {_values(found['additionalProperties'])}"
    return str(found.get("type", "any"))
