"""From a request to a plan: load the manifest, check it against this machine, and list the stages."""

from __future__ import annotations

import functools
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmark.assets.catalogue import Pins, folder, located, remedy, used_by, verify
from benchmark.machine.environment import ignored_variables
from benchmark.machine.gpus import absent_gpus, has_gpu, visible_gpus
from benchmark.manifest.schema import Loaded, ManifestError, load
from benchmark.manifest.smoke_form import DIGITS, scaled
from benchmark.plan.counts import class_counts, image_count
from benchmark.plan.inputs import Look, examine, record_inputs
from benchmark.plan.plan import Plan, located_data, make_plan
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, write_json
from benchmark.plan.saved_plan import resolved_manifest, save_plan
from benchmark.plan.stages import REPORT, SCORE, STEPS, Stage, read_stage
from benchmark.published.registry import load_registry
from benchmark.published.schema import RegistryError
from sra.common.errors import DataError, UserError, expected
from sra.common.files import is_embedded, read_json, write_bytes
from sra.common.listing import check_parts, suffix_of
from sra.config import CODEC_FILES, FP16_NEEDS_GPU, ConfigError, TrainJob, check_codec_folder
from sra.model.state import check_file


def load_request(request: RunRequest) -> Loaded:
    """The requested manifest with its overrides, or its smoke form.

    Raises:
        ManifestError: bad input, in one line.
    """
    loaded = load(request.manifest, request.overrides, request.variants)
    return scaled(loaded) if request.smoke else loaded


class Prepared(NamedTuple):
    """A plan that may run."""

    plan: Plan
    directory: RunDirectory
    processes: int
    """Of training and sampling."""


def prepare(request: RunRequest, remote_processes: int | None = None, look: Look | None = None) -> Prepared:
    """Load and check a manifest, and list its stages.

    Args:
        request: from the command line.
        remote_processes: processes of training and sampling on other machines, whose GPUs cannot be counted here.
        look: at an input; several plans can share one that remembers.

    Raises:
        UserError: bad input, in one line.
    """
    loaded = load_request(request)
    directory = RunDirectory((request.out or Path("runs") / loaded.name).absolute())
    default = 1 if request.smoke and request.processes is None else request.processes
    processes = remote_processes or processes_for(default)
    _check_published(loaded)
    look = look or functools.cache(examine)
    _check_embedded(loaded)
    _check_classes(loaded, look)
    check_batch_split(loaded, processes, look)
    _check_codecs(loaded)
    if STEPS.index(request.until) >= STEPS.index(SCORE.name):
        _check_references_and_graphs(loaded, look)
    _check_weights(loaded)
    return Prepared(make_plan(loaded, directory, accept_moved=request.accept_moved, look=look), directory, processes)


def processes_for(requested: int | None) -> int:
    """Number of processes of training and sampling: as requested, or one per GPU.

    Raises:
        UserError: more than there are GPUs, or less than one.
    """
    gpus = visible_gpus()
    for line in filter(None, (absent_gpus(), ignored_variables())):
        _warn_once(line)
    if requested is None:
        return max(1, gpus)
    if requested < 1 or (gpus and requested > gpus):
        allowed = f"1 to {gpus} (one per GPU)" if gpus else "1 or more"
        raise UserError(expected("--processes", allowed, requested))
    return requested


@functools.cache
def _warn_once(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def check_batch_split(loaded: Loaded, processes: int, look: Look = examine) -> None:
    """Refuse a global batch that the processes or an alignment cannot share evenly, or that is larger than the data.

    Args:
        loaded: the manifest.
        processes: that share a batch.
        look: at an input.

    Raises:
        ManifestError: in one line.
    """
    where = f"{loaded.path}: train.global_batch"
    for run in loaded.runs:
        if run.train is None:
            continue
        data, batch = located_data(run.data), run.train.global_batch
        count = image_count(data, look(str(data.images or data.latents)))
        if batch % (processes * run.train.accumulate):
            divisor = f"a multiple of {processes} processes x accumulate {run.train.accumulate}"
            raise ManifestError(expected(where, divisor, batch))
        if count is not None and batch > count:
            raise ManifestError(expected(where, f"at most the {count} images of the data", batch))
        if run.align is not None:
            try:
                run.align.check_batch(batch // (processes * run.train.accumulate))
            except ConfigError as error:
                raise ManifestError(f"{loaded.path}: variants.{run.variant}: {error}") from error


def _check_published(loaded: Loaded) -> None:
    """Refuse published rows that do not exist."""
    for run in loaded.runs:
        try:
            if run.published:
                load_registry().row(run.published)
        except RegistryError as error:
            raise ManifestError(f"{loaded.path}: variants.{run.variant}.{error}") from error


def _check_embedded(loaded: Loaded) -> None:
    """Refuse names of embedded data, codecs and graphs that do not exist."""
    for run in loaded.runs:
        places = {
            "data.images": run.data.images,
            "codec.path": run.codec.path,
            "score.graph": run.score.graph,
            **{f"score.{name}": place for name, place in run.score.sets.items()},
        }
        for key, place in places.items():
            if place is not None and is_embedded(place) and place != DIGITS:
                raise ManifestError(expected(f"{loaded.path}: {key}", DIGITS, place, [DIGITS]))


def _check_classes(loaded: Loaded, look: Look) -> None:
    """Refuse networks with other classes than the data: labels that were never trained would be sampled."""
    for run in loaded.runs:
        if run.train is None:
            continue
        data, classes = located_data(run.data), run.model.classes
        used, known = class_counts(data, look(str(data.images or data.latents))) or (classes, classes)
        if known <= classes and (used >= classes or run.train.allow_unused_classes):
            continue
        remedy = "" if known > classes else " (more only with train.allow_unused_classes: true)"
        what = f"the {known if known > classes else used} classes of the data{remedy}"
        raise ManifestError(expected(f"{loaded.path}: model.classes", what, classes))


def _check_codecs(loaded: Loaded) -> None:
    """Refuse a folder that is no codec, or another one, before hours are spent on what comes before decoding."""
    for codec in dict.fromkeys(run.codec for run in loaded.runs if run.samples is None):
        place = located(codec.path)
        try:
            check_codec_folder(Path(place))
        except DataError as error:
            how = remedy(place)
            raise ManifestError(f"{loaded.path}: {error}{f' ({how})' if how else ''}") from error
        for key, value in _codec_facts(place).items():
            if getattr(codec, key) != value:
                raise ManifestError(expected(f"{loaded.path}: codec.{key}", f"{value} of {place}", getattr(codec, key)))


def _codec_facts(place: str) -> dict[str, int]:
    """Factor and channels of a codec; empty where they are not known before it is loaded."""
    if is_embedded(place):
        return {"factor": 4, "channels": 4}
    facts = read_json(Path(place) / CODEC_FILES[0]) or {}
    channels, blocks = facts.get("latent_channels"), facts.get("block_out_channels")
    if not isinstance(blocks, list) or not isinstance(channels, int):
        return {}
    return {"factor": 2 ** (len(blocks) - 1), "channels": channels}


def _check_references_and_graphs(loaded: Loaded, look: Look) -> None:
    """Look at the first bytes of what scoring reads: it runs last, and must not fail only then."""
    named = [pair for run in loaded.runs for pair in ({"graph": run.score.graph} | run.score.sets).items()]
    for key, name in dict.fromkeys(named):
        place = located(name)
        where = f"{loaded.path}: score.{key}"
        has_format, formats = (
            (_is_graph, ".pb or .safetensors") if key == "graph" else (_is_images, ".npz, .zip, .tar or .parquet")
        )
        if Path(place).is_file() and not has_format(place):
            raise ManifestError(expected(where, f"a {formats} file", place))
        if key != "graph" and Path(place).exists():
            check_parts(list(look(place).files), Path(place), f"{where} {place}", several=True)


def _is_images(place: str) -> bool:
    """A zip, whatever its name; shards are known by theirs."""
    with Path(place).open("rb") as handle:
        start = handle.read(tarfile.BLOCKSIZE)
    shards = {".tar": start[257:262] == b"ustar", ".parquet": start[:4] == b"PAR1"}
    return shards.get(suffix_of(place), zipfile.is_zipfile(place))


def _is_graph(place: str) -> bool:
    """A frozen graph begins with the tag of its first node, safetensors with a length and a JSON object."""
    with Path(place).open("rb") as handle:
        start = handle.read(9)
    return start[:1] == b"\n" or start[8:] == b"{"


def _check_weights(loaded: Loaded) -> None:
    """Look into the checkpoints before hours are spent on what comes before them."""
    for run in loaded.runs:
        if run.checkpoint is None or loaded.smoke or not (path := Path(located(run.checkpoint))).exists():
            continue
        try:
            check_file(path, run.model, run.codec, run.sample.weights)
        except DataError as error:
            raise ManifestError(f"{loaded.path}: variants.{run.variant}.checkpoint: {error}") from error


def check_inputs(plan: Plan, until: str = REPORT) -> None:
    """Refuse a plan with missing inputs.

    Args:
        plan: all stages.
        until: last kind of stage that will run; what only later ones read may be missing.

    Raises:
        UserError: which, and where they come from.
    """
    read = {place for stage in plan.until(until) for place in stage.places}
    if missing := [place for place in plan.absent if place in read]:
        absent = [place + (f" ({how})" if (how := remedy(place)) else "") for place in missing]
        raise UserError(f"{plan.loaded.path}: input not found: {', '.join(absent)}")


def check_device(stages: Iterable[Stage]) -> None:
    """Refuse to train in fp16 without a GPU before the stages that come first.

    Raises:
        UserError: with the precisions that a CPU has.
    """
    jobs = [s.job for s in stages if isinstance(s.job, TrainJob) and not s.is_done]
    if any(job.train.precision == "fp16" for job in jobs) and not has_gpu():
        raise UserError(FP16_NEEDS_GPU)


def register(plan: Plan, directory: RunDirectory, command: str) -> None:
    """Save the plan in the run directory, and check the assets that it names.

    Assets that are used for the first time are recorded with their hashes.

    Raises:
        AssetError: a file is not the one that was recorded.
    """
    write_bytes(directory.root / "manifest.resolved.yaml", resolved_manifest(plan.loaded).encode())
    save_plan(plan, directory, command)
    record_inputs(directory.root, {place.path: place for stage in plan.stages for place in stage.contents}.values())
    for stage in plan.stages:
        # From now on, stages of version 0.1.0 are recognised by what their inputs hold, too.
        document = read_stage(stage.directory)
        if document and document.get("key") == stage.key and not document.get("identity"):
            write_json(stage.directory / "stage.json", document | stage.origin)
    if not plan.loaded.smoke:
        pins = Pins(folder())
        places = [place for run in plan.loaded.runs for place in run.places if located(place) not in plan.absent]
        for asset in used_by(places, []):
            verify(asset, pins)
