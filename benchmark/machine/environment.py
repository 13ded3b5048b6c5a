"""Environment variables and defaults that jobs, executors and clusters share; which variables reach a job."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

ASSETS_FOLDER = "SRA_BENCH_ASSETS"
"""Environment variable: folder of checkpoints, weights and references."""
REVISION = "SRA_BENCH_REVISION"
"""Environment variable: commit that an image was built from."""
TENSORFLOW_PYTHON = "SRA_BENCH_TENSORFLOW_PYTHON"
"""Environment variable: interpreter of an environment with TensorFlow, if it is not the suite's own."""
MASTER_PORT = 29500
"""Default port at which the nodes of a job meet."""
GRACE_SECONDS = 300.0
"""Time for a job to save a checkpoint and exit when it is asked to stop."""
PATIENCE_SECONDS = 86400
"""Time that a job waits for the stages that it reads."""
JOB_ENV = {
    "GOMP_SPINCOUNT": "10000",
    "PYTHONUNBUFFERED": "1",
    "PYTHONSAFEPATH": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Threads that wait for others spin for a fraction of a millisecond, then sleep: where other programs use the same
cores, longer spinning makes a job several times slower. Jobs print at once, and import nothing from the folder the user
is in. TensorFlow's log is off: it reports a machine without a GPU as an error; real errors it raises."""
FURTHER = "SRA_BENCH_ENVIRONMENT"
"""Environment variable: names of further variables that jobs get, between commas."""
PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|HOSTNAME|LANG|LANGUAGE|LC_\w+|TZ|TERM|COLUMNS|LINES|NO_COLOR|TMPDIR|TEMP|TMP|"
    r"XDG_\w+|DBUS_SESSION_BUS_ADDRESS|VIRTUAL_ENV|CONDA_(DEFAULT_ENV|PREFIX)|MPLCONFIGDIR|NIX_LD\w*|LOCALE_ARCHIVE|"
    r"(?i:(ALL|FTP|HTTPS?|NO)_PROXY)|SSL_CERT_(DIR|FILE)|(REQUESTS|CURL)_CA_BUNDLE|"
    r"(APPTAINER|BUILDAH|CONTAINERS?|DOCKER|PODMAN|SINGULARITY|STORAGE)_\w+|(HF|HUGGINGFACE|SRA_BENCH|WANDB)_\w+|"
    r"CC|CXX|CPATH|(C|CPLUS)_INCLUDE_PATH|LIBRARY_PATH|LD_(LIBRARY_PATH|PRELOAD)|MALLOC_\w+|"
    r"CUDA_(CACHE_\w+|DEVICE_ORDER|HOME|LAUNCH_BLOCKING|MODULE_LOADING|MPS_\w+|PATH|VISIBLE_DEVICES)|"
    r"NVIDIA_(DRIVER_CAPABILITIES|VISIBLE_DEVICES)|(HIP|ROCR)_VISIBLE_DEVICES|HSA_\w+|(FI|GLOO|IBV|MLX5|NCCL|RDMAV|UCX)_\w+|"
    r"OMP_(DISPLAY_\w+|NUM_THREADS|PLACES|PROC_BIND|STACKSIZE|THREAD_LIMIT|WAIT_POLICY)|"
    r"GOMP_\w+|KMP_(AFFINITY|BLOCKTIME)|(BLIS|MKL|OPENBLAS)_NUM_THREADS|PYTORCH_(CUDA_)?ALLOC_CONF|"
    r"TORCH_(CPP|DISTRIBUTED_DEBUG|EXTENSIONS|FR|HOME|LOGS|NCCL|SHOW|TRACE)\w*|TORCHINDUCTOR_(CACHE_DIR|COMPILE_THREADS)|"
    r"TRITON_(CACHE\w*|HOME)|TF_(CPP_\w+|FORCE_GPU_ALLOW_GROWTH|GPU_ALLOCATOR)|"
    r"PYTHON(DEVMODE|DONTWRITEBYTECODE|FAULTHANDLER|HASHSEED|HOME|IOENCODING|MALLOC|NOUSERSITE|PATH|PYCACHEPREFIX|"
    r"USERBASE|UTF8)"
)
"""Variables that jobs inherit: who and where the user is, places, devices, the network, the number of threads, logs.
No others, since a framework's variables change what it computes, and a launcher's make a job wait for others, whatever
the manifest says. `SRA_BENCH_ENVIRONMENT` and site files name further ones; `SRA_BENCH_SPEED` has switches."""
MATTERS = re.compile(
    r"(?!\w+_VERSION|KMP_DUPLICATE_LIB_OK|KMP_INIT_AT_FORK)"
    r"(ACCELERATE|ATEN|BLIS|CUBLAS|CUBLASLT|CUDA|CUDNN|DNNL|GOMP|KMP|MKL|NCCL|NPY|OMP|ONEDNN|OPENBLAS|PYTORCH|"
    r"SRA_BENCH|TORCH|TORCHDYNAMO|TORCHINDUCTOR|TRITON)_\w+|NVIDIA_TF32_OVERRIDE|XLA_FLAGS|"
    r"TF_(CPP|CUDNN|DETERMINISTIC|DISABLE|ENABLE|FORCE|GPU|NUM|USE|XLA)_\w+|"
    r"LD_(LIBRARY_PATH|PRELOAD)|PYTHON(HASHSEED|HOME|OPTIMIZE|PATH)"
)
"""Variables that can matter to a result or its speed. A run records those that its jobs get, by their values, and names
the others in a warning; but threadpoolctl and scikit-learn set two of OpenMP whenever they are imported."""
SECRET = re.compile(r"KEY|PASSW|SECRET|TOKEN|CREDENTIAL")


def further_names(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names in `SRA_BENCH_ENVIRONMENT`."""
    return environment.get(FURTHER, "").replace(",", " ").split()


def for_jobs(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables of a site file, with the one by which jobs get them all."""
    names = [name for name in (*variables, *further_names(variables)) if name != FURTHER]
    return {**variables, FURTHER: ",".join(names)} if variables else {}


def job_environment() -> dict[str, str]:
    """The environment of a job: the variables of this process that are passed on."""
    further = further_names()
    inherited = {n: v for n, v in os.environ.items() if PASSED.fullmatch(n) or n in further}
    if path := inherited.pop("PYTHONPATH", ""):
        # An empty part is the current folder, as after `PYTHONPATH=$PYTHONPATH:/x`.
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, path.split(os.pathsep)))
    return {**inherited, **JOB_ENV}


def recorded(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables of a job's environment that were passed on and can matter, by name; no secrets."""
    found = sorted(environment.items() - JOB_ENV.items())
    return {n: v for n, v in found if (MATTERS.fullmatch(n) or not PASSED.fullmatch(n)) and not SECRET.search(n)}


def ignored_variables() -> str | None:
    """One line if variables are set that can matter but do not reach the jobs; None otherwise."""
    names = sorted(name for name in os.environ.keys() - job_environment().keys() if MATTERS.fullmatch(name))
    return f"jobs do not get {', '.join(names)}; {FURTHER}=NAME,NAME passes variables on" if names else None
