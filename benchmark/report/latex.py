"""The table as papers print it (needs the booktabs package), with the BibTeX entries it cites."""

from __future__ import annotations

from typing import Any

from benchmark.report import view

PLAIN = {c: f"\\{c}" for c in "&%$#_{}"}
NAMED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TYPESET = str.maketrans(PLAIN | NAMED | {"–": "--", "±": r"$\pm$", "−": "$-$"})
ARROWS = {"FID": r"$\downarrow$", "sFID": r"$\downarrow$", "IS": r"$\uparrow$", "Prec.": r"$\uparrow$"}
ARROWS["Rec."] = ARROWS["Prec."]


def render(run: dict[str, Any]) -> str:
    """A `tabular`: each row, beneath it what is published; entries of the cited papers follow as comments."""
    lines = view.verdict_table(run)
    titles = [f"{cell.title}{ARROWS[cell.title]}" for cell in lines[0].cells]
    note = f": {run['headline']}" if run["headline"] else ""
    parts = [f"% {run['name']}{note}", rf"\begin{{tabular}}{{l{'r' * len(titles)}l}}", r"\toprule"]
    parts += [_line(["Variant", *titles, "Verdict"]), r"\midrule"]
    for line in lines:
        parts.append(_line([_text(line.name), *(_text(cell.measured) for cell in line.cells), _text(line.status)]))
        if line.row and not line.part:
            parts.append(_published(run, line))
    parts += [r"\bottomrule", r"\end{tabular}"]
    for paper in run["papers"].values():
        parts += [f"% {text}" for text in (paper["bibtex"] or "").splitlines()]
    return "\n".join(parts)


def _published(run: dict[str, Any], line: view.Line) -> str:
    row = next(row for row in run["rows"] if row["variant"] == line.anchor)
    keys = [key for key in row["published"]["papers"] if run["papers"][key]["bibtex"]]
    name = r"\quad published" + (rf"~\cite{{{','.join(keys)}}}" if keys else "")
    return _line([name, *(_text(cell.published or "–") for cell in line.cells), ""])


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _text(text: str) -> str:
    return text.translate(TYPESET)
