"""The result of a parity run: items in the order of the checks, as a table or as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from sra.parity.tolerance import Judge, Verdict


@dataclass(frozen=True)
class Item:
    """One comparison."""

    item: str
    """File and key, such as `sit/forward/velocity`."""
    error: float | None
    """None: there was nothing to compare."""
    tolerance: float | None
    """What the error may be."""
    ok: bool
    """Whether it holds."""
    note: str = ""
    """What is wrong."""


@dataclass
class Report:
    """Items, and what of the format the folder lacks."""

    limit: float
    """Relative L2 distance that the mode is allowed."""
    items: list[Item] = field(default_factory=list)
    """All comparisons."""
    absent: list[str] = field(default_factory=list)
    """Known files, sections and results that are not in the folder."""

    def compare(self, name: str, found: Tensor, expected: Tensor, judge: Judge) -> None:
        """Add one comparison."""
        verdict: Verdict = judge(found, expected, self.limit)
        error = verdict.error if math.isfinite(verdict.error) else None
        note = verdict.note or ("" if error is not None else "not a number")
        self.items.append(Item(name, error, verdict.tolerance, verdict.ok, note))

    def same(self, name: str, found: Any, expected: Any) -> None:
        """Add a comparison of what is equal or not."""
        holds = found == expected
        note = "" if holds else f"found {found}, expected {expected}"
        self.items.append(Item(name, float(not holds), 0, holds, note))

    def fail(self, name: str, note: str) -> None:
        """Add what cannot be compared."""
        self.items.append(Item(name, None, None, ok=False, note=note))

    @property
    def failed(self) -> list[Item]:
        """Items that fall short."""
        return [item for item in self.items if not item.ok]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"ok": not self.failed, "items": [asdict(item) for item in self.items], "absent": self.absent}

    def table(self) -> str:
        """As text, one line an item."""
        rows = [("item", "error", "tolerance", "ok")]
        rows += [(i.item, _number(i.error), _number(i.tolerance), _outcome(i)) for i in self.items]
        rows += [(name, "-", "-", "absent") for name in self.absent]
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"{name:{width}} {error:>9} {limit:>9}  {ok}" for name, error, limit, ok in rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _outcome(item: Item) -> str:
    return "ok" if item.ok else f"FAILS {item.note}".rstrip()
