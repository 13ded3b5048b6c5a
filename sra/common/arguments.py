"""Command lines of jobs that people type. Torch-free."""

from __future__ import annotations

import argparse
from typing import NoReturn

from sra.common.errors import ConfigError


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose refusals are one line, as everybody else's are."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing the usage."""
        raise ConfigError(f"{self.prog}: {message}")
