"""Rendered Kubernetes manifests: valid by the API's schemas and rules, in the right order, and what their pods run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmark.clusters.jobs import Job
from benchmark.clusters.kubernetes import resources
from benchmark.clusters.kubernetes.site import Claim, Kubernetes
from benchmark.clusters.site_file import section
from benchmark.clusters.skypilot import SkyPilot
from benchmark.commands import work
from benchmark.commands.render import pending_jobs, render_kubernetes
from benchmark.machine.environment import GRACE_SECONDS, MASTER_PORT
from benchmark.plan.prepare import prepare, register
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, is_done, write_json
from benchmark.plan.stages import ScoreJob, Stage
from sra.common.errors import STOPPED, UserError

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "manifests" / "smoke.yaml"
VERSIONS = ("1.29", "1.33", "1.37")
LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
FULL = {
    "namespace": "research",
    "images": {"repository": "registry.example/sra-bench", "tag": "v1"},
    "pull_secrets": ["registry"],
    "data": [{"claim": "imagenet", "mount": "/data/imagenet", "sub_path": "train"}],
    "nodes": 2,
    "gpus": 4,
    "node_selector": {"gpu": "h100"},
    "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    "priority_class": "low",
    "queue": "team-a",
    "deadline": 604800,
    "env": {"NCCL_SOCKET_IFNAME": "eth0"},
    "env_from": [{"secret": "wandb"}, {"config_map": "proxy"}],
    "service_account": "bench",
    "annotations": {"sidecar.istio.io/inject": "false"},
    "resources": {"rdma/hca": 1},
    "host_network": True,
    "capabilities": ["IPC_LOCK"],
    "runtime_class": "nvidia",
    "stages": {"score": {"memory": "48Gi"}, "clean-fid": {"gpus": 2}, "images": {"node_selector": {"disk": "big"}}},
}


def site(folder: Path, **changes: Any) -> Path:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"kubernetes": {"runs": {"claim": "runs", "mount": str(folder)}, **changes}}))
    return path


def requested(out: Path, *overrides: str) -> RunRequest:
    return RunRequest(manifest=MANIFEST, out=out, overrides=("train.milestones=[]", *overrides), variants=("sra",))


def rendered(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    place = site(folder, **changes)
    text = render_kubernetes(requested(folder / "run"), site=place, to=None)
    return list(yaml.safe_load_all(text))


def jobs(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind of stage, the first of each."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        if document["kind"] == "Job":
            found.setdefault(document["metadata"]["labels"][resources.LEVEL_LABEL], document)
    names = {"01": "images", "02": "latents", "03": "train", "05": "sample", "06": "score", "07": "report"}
    return {names[level]: job for level, job in found.items()}


def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("changes", [{}, {"gpus": 0}, FULL], ids=["default", "cpu", "full"])
def test_the_api_takes_them(tmp_path: Path, changes: dict[str, Any]) -> None:
    documents = rendered(tmp_path, **changes)
    for document in documents:
        for version in VERSIONS if changes is FULL else VERSIONS[:1]:
            kubernetes_validate.validate(document, version, strict=True)
    # What the schemas do not say.
    for job in (d for d in documents if d["kind"] == "Job"):
        assert job["spec"]["completionMode"] == "Indexed"
        assert job["spec"]["completions"] == job["spec"]["parallelism"]
        assert job["spec"]["podReplacementPolicy"] in ("Failed", "TerminatingOrFailed")
        assert pod(job)["restartPolicy"] == "Never"
        assert {rule["action"] for rule in job["spec"]["podFailurePolicy"]["rules"]} <= {"Ignore", "Count", "FailJob"}
        containers = [*pod(job).get("initContainers", []), *pod(job)["containers"]]
        volumes = {volume["name"] for volume in pod(job)["volumes"]}
        for one in containers:
            assert {mount["name"] for mount in one["volumeMounts"]} == volumes
            assert one["imagePullPolicy"] in ("IfNotPresent", "Always", "Never")
        assert len({one["name"] for one in containers}) == len(containers)
        labels = {**job["metadata"]["labels"], **job["spec"]["template"]["metadata"]["labels"]}
        assert all(re.fullmatch(r"([A-Za-z0-9][\w.-]{0,61})?[A-Za-z0-9]", value) for value in labels.values())
    names = [(d["kind"], d["metadata"]["name"]) for d in documents]
    assert len(set(names)) == len(names)


@given(run=st.text(max_size=80), label=st.text(max_size=80))
def test_names_are_dns_labels(run: str, label: str) -> None:
    site = Kubernetes(runs=Claim(claim="runs", mount="/runs"))
    job, directory = Job(kind="train", name=label), RunDirectory(Path("/runs/x"))
    manifest = resources.JobManifest(job=job, run=run, set="x", directory=directory, site=site)
    assert LABEL.fullmatch(f"{manifest.name}-1023")
    assert re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,61})?[A-Za-z0-9]", resources.run_label(run))


def test_nodes_meet_at_the_first(tmp_path: Path) -> None:
    documents = rendered(tmp_path, nodes=2, gpus=4)
    train = jobs(documents)["train"]
    name = train["metadata"]["name"]
    service = next(d for d in documents if d["kind"] == "Service" and d["metadata"]["name"] == name)
    template = train["spec"]["template"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"]
    assert pod(train)["subdomain"] == name
    assert train["spec"]["completions"] == 2
    command = pod(train)["containers"][0]["command"]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert options["--master-addr"] == f"{name}-0.{name}"
    assert (options["--nodes"], options["--processes"]) == ("2", "8")
    images = jobs(documents)["images"]
    assert images["spec"]["completions"] == 1
    assert "subdomain" not in pod(images)


def requests_of(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod(job)["containers"][0]["resources"]["requests"]
    return found


def test_jobs_get_the_variables_of_the_site(tmp_path: Path) -> None:
    given = {"MKL_CBWR": "AVX2", "SRA_BENCH_ENVIRONMENT": "OF_A_SECRET"}
    (container,) = pod(jobs(rendered(tmp_path, env=given))["train"])["containers"]
    found = {variable["name"]: variable["value"] for variable in container["env"]}
    assert (found["MKL_CBWR"], found["SRA_BENCH_ENVIRONMENT"]) == ("AVX2", "MKL_CBWR,OF_A_SECRET")


def test_a_stage_asks_for_what_it_uses(tmp_path: Path) -> None:
    """A training node's cores, memory, GPUs and network are not for pods that do not train or sample."""
    large = {"gpus": 4, "cpus": 64, "memory": "512Gi", "resources": {"rdma/hca": 1}, "host_network": True}
    documents = rendered(tmp_path, **large, runtime_class="nvidia", node_selector={"gpu": "h100"})
    found = jobs(documents)
    whole = {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": 4, "rdma/hca": 1}
    small = {"cpu": "8", "memory": "32Gi"}
    assert {kind: requests_of(job) for kind, job in found.items()} == {
        "images": small,
        "latents": {**small, "nvidia.com/gpu": 1},
        "train": whole,
        "sample": whole,
        "score": small,  # Of adm, whose image has no CUDA.
        "report": small,
    }
    tools = {d["metadata"]["name"]: requests_of(d) for d in documents if "score" in d["metadata"]["name"]}
    assert sorted(one.get("nvidia.com/gpu", 0) for one in tools.values()) == [0, 1, 1]
    for kind, job in found.items():
        spec, on_gpu = pod(job), kind in ("latents", "train", "sample")
        assert (spec.get("nodeSelector"), spec.get("runtimeClassName")) == (
            ({"gpu": "h100"}, "nvidia") if on_gpu else (None, None)
        )
        assert spec.get("hostNetwork", False) == (kind in ("train", "sample"))
    small_cluster = jobs(rendered(tmp_path, gpus=0, cpus=2, memory="4Gi"))
    assert {str(requests_of(job)) for job in small_cluster.values()} == {"{'cpu': '2', 'memory': '4Gi'}"}


def test_a_site_says_what_a_stage_or_a_tool_needs(tmp_path: Path) -> None:
    tolerations = [{"key": "cpu", "effect": "NoSchedule"}]
    stages = {
        "score": {"memory": "64Gi", "node_selector": {"disk": "big"}, "gpus": 1},
        "adm": {"cpus": 16, "annotations": {"team": "x"}},
        "train": {"cpus": "500m", "capabilities": ["IPC_LOCK"], "runtime_class": "kata"},
        "images": {"tolerations": tolerations, "resources": {"ephemeral-storage": "9Gi"}},
    }
    found = jobs(rendered(tmp_path, stages=stages))
    score = found["score"]
    assert requests_of(score) == {"cpu": "16", "memory": "64Gi"}
    assert pod(score)["nodeSelector"] == {"disk": "big"}
    assert score["spec"]["template"]["metadata"]["annotations"] == {"team": "x"}
    assert (requests_of(found["train"])["cpu"], pod(found["train"])["runtimeClassName"]) == ("500m", "kata")
    assert pod(found["train"])["containers"][0]["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    assert pod(found["images"])["tolerations"] == [{"key": "cpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert requests_of(found["images"])["ephemeral-storage"] == "9Gi"
    few = jobs(rendered(tmp_path, gpus=8, nodes=2, stages={"train": {"gpus": 2}, "sample": {"gpus": 0}}))
    words = {kind: pod(few[kind])["containers"][0]["command"] for kind in ("train", "sample")}
    assert {kind: each[each.index("--processes") + 1] for kind, each in words.items()} == {"train": "4", "sample": "2"}
    assert "tolerations" not in pod(found["report"])


def test_jobs_on_the_nodes_network_have_ports_of_their_own() -> None:
    cluster = Kubernetes(runs=Claim(claim="runs", mount="/runs"), host_network=True)
    directory, names = RunDirectory(Path("/runs/x")), ("train-a", "train-b", "train-c")
    made = [
        resources.JobManifest(job=Job(kind=kind, name=name), run="x", set="x", directory=directory, site=cluster)
        for kind in ("train", "images")
        for name in names
    ]
    assert len({one.port for one in made[:3]}) == 3
    assert {one.port for one in made[3:]} == {MASTER_PORT}


def test_no_path_of_this_machine_gets_into_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, found in {"/home/me/assets": False, str(tmp_path / "assets"): True}.items():
        monkeypatch.setenv("SRA_BENCH_ASSETS", place)
        monkeypatch.setenv("SRA_BENCH_TENSORFLOW_PYTHON", "/home/me/python")
        text = yaml.safe_dump(rendered(tmp_path))
        assert (place in text) == found
        assert not {path for path in ("/home/", str(Path.home()), str(ROOT), sys.prefix) if path in text}


def test_pods_are_shut_in_and_time_to_save_is_granted(tmp_path: Path) -> None:
    for job in jobs(rendered(tmp_path, **FULL)).values():
        spec = pod(job)
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["terminationGracePeriodSeconds"] > GRACE_SECONDS
        assert not spec["automountServiceAccountToken"]
        for one in [*spec.get("initContainers", []), *spec["containers"]]:
            context = one["securityContext"]
            assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
            assert context["capabilities"]["drop"] == ["ALL"]
            mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in one["volumeMounts"]}
            assert mounts == {str(tmp_path): False, "/data/imagenet": True, "/tmp": False, "/dev/shm": False}
        shared = next(volume for volume in spec["volumes"] if volume["name"] == "shared")
        assert shared["emptyDir"]["medium"] == "Memory"


def test_saved_work_and_preemption_are_no_failures(tmp_path: Path) -> None:
    rules = jobs(rendered(tmp_path))["train"]["spec"]["podFailurePolicy"]["rules"]
    codes = {c: r["action"] for r in rules if "onExitCodes" in r for c in r["onExitCodes"]["values"]}
    # The crash of one pod ends its fellows with code 2: a job must not be given up for it.
    assert codes == {STOPPED: "Ignore"}
    conditions = {c["type"]: r["action"] for r in rules for c in r.get("onPodConditions", ())}
    assert conditions == {"DisruptionTarget": "Ignore"}


def test_a_queue_starts_the_jobs(tmp_path: Path) -> None:
    for job in jobs(rendered(tmp_path, queue="team-a")).values():
        assert job["spec"]["suspend"]
        assert job["metadata"]["labels"][resources.QUEUE_LABEL] == "team-a"
    assert not any("suspend" in job["spec"] for job in jobs(rendered(tmp_path)).values())


def test_each_job_waits_for_what_it_reads(tmp_path: Path) -> None:
    found = jobs(rendered(tmp_path))

    def awaited(kind: str) -> set[str]:
        waiting_container = pod(found[kind]).get("initContainers", [{"command": []}])[0]
        words = waiting_container["command"]
        return {words[n + 1].rpartition("-")[0] for n, word in enumerate(words) if word == "--stage"}

    assert awaited("images") == set()
    assert awaited("latents") == {"images"}
    assert awaited("train") == {"latents"}
    assert awaited("sample") == {"train-sra"}
    assert awaited("score") == {"images", "sample-sra"}
    plan, _, _ = prepare(requested(tmp_path / "run"))
    assert awaited("report") == {stage.name for stage in plan.stages}


def test_jobs_keep_their_names_while_others_end(tmp_path: Path) -> None:
    before = {d["metadata"]["name"]: d for d in rendered(tmp_path)}
    plan, _, _ = prepare(requested(tmp_path / "run"))
    first = plan.stages[0]
    for name in first.outputs:
        (first.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (first.directory / name).write_text("x")
    write_json(first.directory / "done.json", {"key": first.key, "outputs": dict.fromkeys(first.outputs, 1)})
    assert is_done(first.directory, first.key)
    after = {d["metadata"]["name"]: d for d in rendered(tmp_path)}
    assert len(after) == len(before) - 1
    assert all(before[name] == job for name, job in after.items())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"gpu": 4}, "got 'gpu' (did you mean 'gpus'"),
        (
            {"tolerations": [{"keys": "x"}]},
            "tolerations.0: expected one of the keys key, operator, value, effect, got 'keys' (did",
        ),
        ({"tolerations": [{"effect": "Never"}]}, "effect: expected 'NoSchedule'"),
        ({"namespace": "My_Space"}, "'My_Space'"),
        ({"runs": {"claim": "runs", "mount": "runs"}}, "mount: expected an absolute path below /, got 'runs'"),
        ({"runs": {"claim": "runs", "mount": "/elsewhere"}}, "kubernetes.runs.mount /elsewhere"),
        ({"memory": "lots"}, "'lots'"),
        ({"nodes": 0}, "nodes: expected greater than or equal to 1, got 0"),
        ({"stages": {"images": {"cpu": 4}}}, "got 'cpu' (did you mean 'cpus'"),
        ({"stages": {"training": {"cpus": 4}}}, "stages.training: expected 'images'"),
        ({"stages": {"adm": {"gpus": 1}}}, "stages.adm.gpus: expected 0"),
        ({"hostNetwork": True}, "got 'hostNetwork' (did you mean 'host_network'"),
        ({"capabilities": ["CAP_IPC_LOCK"]}, "'CAP_IPC_LOCK'"),
        ({"annotations": {"inject": False}}, "annotations.inject: expected a valid string, got False"),
        ({"resources": {"rdma/hca": "many"}}, "resources.rdma/hca: expected a quantity"),
        ({"env_from": [{"secret": "a", "config_map": "b"}]}, "env_from.0: expected either secret or config_map"),
        ({"nodes": 3}, "train.global_batch: expected a multiple of 3 processes"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(problem)) as error:
        rendered(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_the_documented_sites_are_valid(tmp_path: Path) -> None:
    """The blocks of the page that begin with a section."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    for name, cls in {"kubernetes": Kubernetes, "skypilot": SkyPilot}.items():
        block = re.search(rf"^    {name}:\n(?:     .*\n)+", text, re.MULTILINE)
        assert block is not None
        (tmp_path / "site.yaml").write_text(textwrap.dedent(block[0]))
        assert section(tmp_path / "site.yaml", name, cls).images.repository == "registry.example/sra-bench"


def test_bad_site_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    for text, problem in {
        None: "No such file",
        "kubernetis: {}": "'kubernetis' (did you mean 'kubernetes'",
        "skypilot: {}": "section 'kubernetes'",
        "[": "expected YAML",
        "x": "expected sections",
        "kubernetes: {}": "runs: missing",
    }.items():
        if text is not None:
            path.write_text(text)
        with pytest.raises(UserError, match=re.escape(problem)):
            section(path, "kubernetes", Kubernetes)


def test_inputs_must_lie_in_volumes() -> None:
    cluster = Kubernetes(runs=Claim(claim="runs", mount="/runs"), data=(Claim(claim="data", mount="/data"),))
    directory = RunDirectory(Path("/runs/x"))

    def check(place: str, **env: str) -> None:
        settings = ScoreJob(tool="adm", reference=place, graph="embedded:digits")
        stage = Stage(name="x", key="0" * 16, directory=directory.stages / "x", job=settings)
        job = Job(kind="score", name="x", stages=(stage,))
        resources.check_volumes([job], directory, Kubernetes(**{**vars(cluster), "env": env}))

    for place in ("embedded:digits", "/data/imagenet", "/runs/x/stages/y"):
        check(place)
    with pytest.raises(UserError, match=r"/database/x: .* kubernetes\.data"):
        check("/database/x")
    with pytest.raises(UserError, match="HF_HUB_CACHE"):
        check("stabilityai/sd-vae-ft-ema")
    check("stabilityai/sd-vae-ft-ema", HF_HUB_CACHE="/data/hub")


def test_inputs_must_be_there(tmp_path: Path) -> None:
    request = requested(tmp_path / "run", f"data.images={tmp_path}/none")
    with pytest.raises(UserError, match=r"input not found: .*render where the volumes are mounted"):
        render_kubernetes(request, site=site(tmp_path), to=None)


KUBECTL = """#!/bin/sh
# Remembers what is applied; a job is complete unless its level is that of $FAILING or $PENDING.
[ "$3" = --request-timeout=2m ] && shift 3
echo "$*" >> "$CALLS"
case "$*" in *level="$PENDING"*) pending=1 ;; *) pending= ;; esac
case "$1" in
  get)
    case "$*" in
      *ready*) [ -e "$READY" ] && echo "1 1" || true ;;
      *jsonpath*) [ -z "$FAILING" ] || echo "$FAILING=True" ;;
      "get pod"*) echo "NAME STATUS" ;;
      *) file=$(echo "$*" | sed 's/.*-f //'); grep -q "apply.* $file" "$CALLS" ;;
    esac ;;
  describe) printf 'Name: a\\nStatus: Pending\\nEvents:\\n  FailedScheduling 0/5 nodes\\n\\nName: b\\n' ;;
  wait) case "$*" in *level="${FAILING:-none}"*|*level="$PENDING"*) rm -f "$READY"; exit 1 ;; esac ;;
esac
"""


def apply(to: Path, *, failing: str = "", pending: str = "none") -> tuple[int, list[str], str]:
    """Exit code of `apply.sh` with that kubectl, the files applied so far, and standard error."""
    root = to.parent
    for name, text in {"kubectl": KUBECTL, "sleep": "#!/bin/sh\n"}.items():
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    (root / "calls").touch()
    own = {"CALLS": str(root / "calls"), "READY": str(root / "ready"), "FAILING": failing, "PENDING": pending}
    environment = {**os.environ, "PATH": f"{root}:{os.environ['PATH']}", **own}
    done = subprocess.run([to / "apply.sh"], env=environment, capture_output=True, text=True, check=False, timeout=60)
    lines = (root / "calls").read_text().splitlines()
    return done.returncode, [line.split()[-1] for line in lines if line.startswith("apply")], done.stderr


def test_files_are_applied_level_by_level(tmp_path: Path) -> None:
    to = tmp_path / "jobs"
    render_kubernetes(requested(tmp_path / "run"), site=site(tmp_path), to=to)
    assert apply(to, failing="03")[:2] == (1, ["01-images.yaml", "02-latents.yaml", "03-train.yaml"])
    # The same command goes on, and applies nothing twice.
    files = sorted(path.name for path in to.glob("*.yaml"))
    assert apply(to, failing="none")[:2] == (0, files)
    waits = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("wait")]
    assert all("--for=condition=complete" in line and "-l sra-bench/set=" in line for line in waits)


def test_applying_gives_up_when_no_pod_runs(tmp_path: Path) -> None:
    to = tmp_path / "jobs"
    render_kubernetes(requested(tmp_path / "run"), site=site(tmp_path, patience=2), to=to)
    (tmp_path / "ready").touch()  # At first one runs.
    code, files, errors = apply(to, pending="02")
    assert (code, files) == (1, ["01-images.yaml", "02-latents.yaml"])
    assert "Name: a\nEvents:\n  FailedScheduling 0/5 nodes\n" in errors
    assert errors.endswith("gave up: no pod of 02-latents.yaml was running for 2 s\n")
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert checker is not None
    assert subprocess.run([checker, to / "apply.sh"], capture_output=True, text=True, check=False).stdout == ""


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    to = tmp_path / "jobs"
    to.mkdir()
    (to / "04-standin.yaml").touch()
    with pytest.raises(UserError, match=r"holds 04-standin\.yaml of another run"):
        render_kubernetes(requested(tmp_path / "run"), site=site(tmp_path), to=to)


def test_waiting_ends_with_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, directory, _ = prepare(requested(tmp_path))
    directory.create()
    with pytest.raises(UserError, match=r"plan\.json"):
        work.await_stages(tmp_path, ["x"], 0)
    register(plan, directory, "x")
    first = plan.stages[0]
    with pytest.raises(UserError, match="images: not done within 0 s"):
        work.await_stages(tmp_path, [first.directory.name], 0)
    write_json(first.directory / "failed.json", {"key": first.key, "message": "no such folder"})
    with pytest.raises(UserError, match="images: no such folder"):
        work.await_stages(tmp_path, [first.directory.name], 60)
    # A failure of other settings is none of these.
    write_json(first.directory / "failed.json", {"key": "other", "message": "no such folder"})

    def finish(_seconds: float) -> None:
        for name in first.outputs:
            (first.directory / name).parent.mkdir(exist_ok=True)
            (first.directory / name).touch()
        write_json(first.directory / "done.json", {"key": first.key, "outputs": {}})

    monkeypatch.setattr(work.time, "sleep", finish)
    assert work.await_stages(tmp_path, [first.directory.name], 60) == f"done: {first.directory.name}"


def test_a_tool_that_could_not_run_is_not_waited_for(tmp_path: Path) -> None:
    """The table says so; its stage is never done, and its job has ended."""
    plan, directory, _ = prepare(requested(tmp_path))
    directory.create()
    register(plan, directory, "x")
    score = next(stage for stage in plan.stages if stage.kind.name == "score")
    write_json(score.directory / "scores.json", {"error": "no weights"})
    assert work.await_stages(tmp_path, [score.directory.name], 0) == f"done: {score.directory.name}"


@pytest.mark.slow
def test_what_the_pods_run(tmp_path: Path) -> None:
    """Containers' commands as processes of this machine; the second job is started first, and waits."""
    found = jobs(rendered(tmp_path, gpus=0))
    environment = {**os.environ, "JOB_COMPLETION_INDEX": "0", "OMP_NUM_THREADS": "1"}

    def start(job: dict[str, Any]) -> subprocess.Popen[str]:
        containers = [*pod(job).get("initContainers", []), *pod(job)["containers"]]
        words = [[sys.executable, "-m", "benchmark.cli.main", *one["command"][1:]] for one in containers]
        script = " && ".join(shlex.join(line) for line in words)
        return subprocess.Popen(["sh", "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    running = [start(found[kind]) for kind in ("latents", "images")]
    texts = [process.communicate(timeout=180)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], texts
    plan, directory, _ = prepare(requested(tmp_path / "run"))
    assert [job.kind for job in pending_jobs(plan, directory)] == [
        "train",
        "sample",
        "score",
        "score",
        "score",
        "report",
    ]
