"""What a bundle does not tell: where things lie on this machine, and the names of its user and hosts."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.plan.run_directory import RunDirectory, mapped
from sra.common.files import read_json

PATH = re.compile(r"""(?<![\w.~/<>*%&-])(?:file://)?~?/(?!/)[^\s"'`<>|;:,()\[\]{}\\]+""")
"""An absolute path in a text; not a part of an address or of a relative path."""
HIDDEN = "..."
JSON, LINES, LOG = ".json", ".jsonl", ".txt"
TEXTS = (JSON, LINES, LOG, ".yaml")
"""Files of a run that are texts."""
PAGES = (".html", ".md", ".svg")
"""Of a report, which have slashes of their own."""
EVERYBODY = ("root", "localhost")
"""Names that say nothing."""


class Private:
    """Hides the places of a run and its machine.

    Args:
        directory: of the run.
        shown: what stands for its path.
    """

    def __init__(self, directory: RunDirectory, shown: str) -> None:
        roots = {str(directory.root.absolute()), str(directory.root.resolve())}
        # In a sentence, a path ends at a space: those that go on are looked up where they stand alone.
        own = tuple(f"{root}/" for root in roots)
        found = {path for path in _places(directory) if not PATH.fullmatch(path) and not f"{path}/".startswith(own)}
        known = [(root, shown) for root in roots] + [(path, _hidden(path)) for path in found]
        ordered = sorted(known, key=lambda pair: len(pair[0]), reverse=True)
        self._known = [(re.compile(rf"{re.escape(path)}(?![\w.-])"), to) for path, to in ordered]
        self._names = _names(directory)

    def text(self, text: str) -> str:
        """A text, with the last part of every absolute path."""
        for path, shown in self._known:
            text = path.sub(shown.replace("\\", r"\\"), text)
        return PATH.sub(lambda match: _hidden(match[0]), text)

    def json(self, text: str, indent: int | None) -> str:
        """A JSON document, likewise."""
        try:
            document = json.loads(text)
        except ValueError:  # damaged
            return self.text(text)
        hidden = mapped(document, self.text)
        return text if hidden == document else json.dumps(hidden, indent=indent)

    def file(self, path: Path) -> str:
        """Content of one of `TEXTS`, likewise; a log without the names of user and hosts, too."""
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == JSON:
            return self.json(text, 2)
        if path.suffix == LINES:
            return "".join(f"{self.json(line, None)}\n" for line in text.splitlines())
        return self._names.sub(HIDDEN, self.text(text)) if path.suffix == LOG else self.text(text)


def told(path: Path) -> str | None:
    """The first absolute path in a text of a bundle, or one in the user's home in a page of it; None: none."""
    if path.suffix not in (*TEXTS, *PAGES):
        return None
    pattern = re.compile(rf"{re.escape(str(Path.home()))}/[^\s\"'<]+") if path.suffix in PAGES else PATH
    found = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
    return found and found[0]


def _hidden(path: str) -> str:
    return f"{HIDDEN}/{path.rstrip('/').rpartition('/')[2]}"


def _strings(document: Any) -> Iterator[str]:
    if isinstance(document, dict | list):
        for value in document.values() if isinstance(document, dict) else document:
            yield from _strings(value)
    elif isinstance(document, str):
        yield document


def _places(directory: RunDirectory) -> Iterator[str]:
    """Absolute paths that stand alone in the records of a run; of a search path, each."""
    for path in (*directory.root.glob("*.json"), *directory.stages.glob("*/stage.json")):
        for text in _strings(read_json(path) or {}):
            yield from (part for part in text.split(os.pathsep) if part.startswith(("/", "~/")))


def _names(directory: RunDirectory) -> re.Pattern[str]:
    """The user, this machine, and those whose jobs left a heartbeat."""
    beats = [directory.heartbeat, *directory.workers.glob("*.json"), *directory.stages.glob("*/heartbeat.json")]
    hosts = {str(sign["host"]) for path in beats if "host" in (sign := read_json(path) or {})} | {socket.gethostname()}
    names = {getpass.getuser(), *hosts, *(host.partition(".")[0] for host in hosts)} - {"", *EVERYBODY}
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})(?![\w-])")
