"""`sra-bench fetch`: list assets, or download those that are named or that a manifest needs."""

from __future__ import annotations

from pathlib import Path

from benchmark.assets.catalogue import Asset, catalogue, find, folder, used_by
from benchmark.assets.download import fetch
from benchmark.manifest.schema import Loaded, load
from sra.common.files import is_embedded


def fetch_named(names: list[str], manifest: Path | None, to: Path | None) -> str:
    """What `sra-bench fetch` does; without a name or a manifest it lists the assets. Returns what to print at the end.

    Raises:
        UserError: an unknown name, a bad manifest, or see `fetch`.
    """
    root = to.absolute() if to else folder()
    if not names and manifest is None:
        return "\n".join(_listed(asset, root) for asset in catalogue().values())
    chosen = [find(name) for name in dict.fromkeys(names)]
    if manifest is not None:
        chosen += [asset for asset in needed_by(load(manifest)) if asset not in chosen]
    fetch(chosen, root)
    return f"{len(chosen)} assets in {root}" if chosen else f"{manifest}: needs no assets"


def _listed(asset: Asset, root: Path) -> str:
    state = "absent" if asset.missing(root) else "present"
    return f"{state:8} {asset.name:28} {asset.what}; {asset.place(root)}"


def needed_by(loaded: Loaded) -> list[Asset]:
    """Assets of a manifest: those it names, and the weights of its tools where the graph is the real one."""
    places = [place for run in loaded.runs for place in run.places]
    real = [run.score.tools for run in loaded.runs if not is_embedded(run.score.graph)]
    return used_by(places, [tool for tools in real for tool in tools])
