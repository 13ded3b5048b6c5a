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
LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|"
    r"(ACCELERATE|FSDP|MEGATRON_LM|MV2|OMPI|PARALLELISM_CONFIG|PET|PMIX?|SLURM|TORCHELASTIC)_\w+"
)
"""Variables of accelerate, MPI, Slurm and torchrun that jobs do not inherit. Left over in a shell, they would make a
job wait for others, or train with settings that no manifest names; the jobs' own launcher sets what they need."""
SETTINGS = re.compile(
    r"NVIDIA_TF32_OVERRIDE|(DNNL|ONEDNN)_DEFAULT_FPMATH_MODE|XLA_FLAGS|PYTHON(INSPECT|OPTIMIZE|WARNINGS)|"
    r"TORCH_(?!CPP_|CUDA_ARCH|DISTRIBUTED_DEBUG|EXTENSIONS|FR_|HOME|LOGS|NCCL_|SHOW_|TRACE)\w+|TORCHDYNAMO_\w+|"
    r"TORCHINDUCTOR_(?!CACHE_DIR|COMPILE_THREADS)\w+|TRITON_(?!CACHE|HOME)\w+|TF_(?!CPP_|FORCE_GPU_ALLOW|GPU_ALLOC)\w+"
)
"""Variables that change what torch and TensorFlow compute, whatever the manifest and the job's records say: jobs do not
inherit them, either. What may be set is a key of the manifest or a switch of `SRA_BENCH_SPEED`."""
RESOURCES = re.compile(
    r"(ATEN|BLIS|CUBLAS|CUBLASLT|CUDA|CUDNN|DNNL|KMP|MKL|NCCL|NPY|OMP|ONEDNN|OPENBLAS|PYTORCH|SRA_BENCH|TF|TORCH|"
    r"TORCHINDUCTOR|TRITON)_\w+|LD_(LIBRARY_PATH|PRELOAD)|PYTHON(HASHSEED|HOME|PATH)"
)
"""Inherited variables that can matter: threads, devices, libraries, algorithms. A run records their values."""
SECRET = re.compile(r"KEY|PASSW|SECRET|TOKEN|CREDENTIAL")


def job_environment() -> dict[str, str]:
    """The environment of a job: that of this process, without what would change a number unseen."""
    inherited = {n: v for n, v in os.environ.items() if not LAUNCHERS.fullmatch(n) and not SETTINGS.fullmatch(n)}
    if path := inherited.pop("PYTHONPATH", ""):
        # An empty part is the current folder, as after `PYTHONPATH=$PYTHONPATH:/x`.
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, path.split(os.pathsep)))
    return {**inherited, **JOB_ENV}


def recorded(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables of a job's environment that can matter, by name; no secrets."""
    found = sorted(environment.items() - JOB_ENV.items())
    return {n: v for n, v in found if RESOURCES.fullmatch(n) and not SECRET.search(n)}
