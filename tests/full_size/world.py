"""`python world.py COUNT MODULE ARGUMENTS...`: a job in COUNT processes, forked so that they share torch's memory."""

import importlib
import os
import signal
import socket
import sys
import traceback

import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401  (shared as well)


def work(rank: int, count: int, port: int, module: str, arguments: list[str]) -> int:
    """The job as one process of a launcher."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    try:
        importlib.import_module(module).main(arguments)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(count: int, module: str, *arguments: str) -> int:
    importlib.import_module(module)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = []
    for rank in range(count):
        if (worker := os.fork()) == 0:
            code = work(rank, count, port, module, list(arguments))
            sys.stdout.flush()
            os._exit(code)
        workers.append(worker)
    for _ in range(count):
        ended, status = os.wait()
        workers.remove(ended)
        if status:
            # The others would wait for it.
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
