"""`sra-bench publish`: put a bundle into a data set of the Hugging Face hub, where reproductions are collected."""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmark.report.bundle import CONTENTS
from benchmark.report.private import told
from benchmark.report.verify import CONTRADICTED, NOT_PROVED, examine
from sra.common.errors import UserError, expected
from sra.common.tables import text_table

DESTINATION = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)")
DIGEST_CHARACTERS = 16
"""Of the hash of a bundle's contents, in its name there."""


@dataclass(frozen=True)
class Upload:
    """A verified bundle, and where it goes."""

    bundle: Path
    repository: str
    place: str
    """In the repository; the same for the same contents."""
    text: str
    """What is sent, a file a line."""

    @property
    def address(self) -> str:
        """Of the file."""
        return f"hf://datasets/{self.repository}/{self.place}"

    def is_there(self) -> bool:
        """Whether the same contents were sent before.

        Raises:
            UserError: the hub does not answer.
        """
        from huggingface_hub import HfApi

        try:
            return HfApi().file_exists(self.repository, self.place, repo_type="dataset")
        except Exception as error:
            raise self._refused(error) from error

    def send(self) -> None:
        """Send the archive; make the data set if there is none.

        Raises:
            UserError: the hub refuses it, or does not answer.
        """
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        if get_token() is None:
            raise UserError("publish: expected a token of the hub (`hf auth login`, or HF_TOKEN), got none")
        if not sys.stderr.isatty():
            disable_progress_bars()
        try:
            HfApi().create_repo(self.repository, repo_type="dataset", exist_ok=True)
            HfApi().upload_file(
                path_or_fileobj=self.bundle, path_in_repo=self.place, repo_id=self.repository, repo_type="dataset"
            )
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> UserError:
        # The hub's client raises the errors of its HTTP library, which changes with its version, as well as its own.
        told = getattr(error, "server_message", None) or " ".join(str(reason) for reason in (error, error.__cause__))
        return UserError(f"{self.address}: not sent: {' '.join(told.split())}")


def prepare(bundle: Path, to: str) -> Upload:
    """Verify a bundle and list what would be sent; no network.

    Args:
        bundle: an archive that `sra-bench bundle` made.
        to: `hf://datasets/USER/NAME`.

    Raises:
        UserError: another destination, a bundle that contradicts itself, or one with private paths.
    """
    if not (found := DESTINATION.fullmatch(to)):
        raise UserError(expected("--to", "hf://datasets/USER/NAME", to))
    with tempfile.TemporaryDirectory() as folder:
        examined = examine(bundle, Path(folder))
        if examined.code == CONTRADICTED:
            raise UserError(f"{bundle}: expected files that agree, got: {examined.findings.bad[0]}")
        contents = examined.contents
        files = [Path(folder) / name for name in contents.files]
        for name, path in zip(contents.files, files, strict=True):
            if place := told(path):
                raise UserError(
                    f"{bundle}: {name}: expected no private paths, got {place!r}; make it again: sra-bench bundle"
                )
        rows = [(f"{path.stat().st_size:,}", name) for name, path in zip(contents.files, files, strict=True)]
    place = f"bundles/{contents.name}-{contents.digest[:DIGEST_CHARACTERS]}.zip"
    rows.append((f"{bundle.stat().st_size:,}", f"{place}, with {CONTENTS}"))
    table = text_table(("bytes", "file"), rows, left=(1,))
    note = ["nothing inside proves its scores: it will count nowhere"] if examined.code == NOT_PROVED else []
    return Upload(bundle, found[1], place, "\n".join([table, *note]))
