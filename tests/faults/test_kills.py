"""SIGKILL at random moments in all stages, each time the same command again: results equal the uninterrupted run's.

SRA_BENCH_KILLS sets how many; 20 or more is the full test.
"""

import json
import os
import random
import re
import shutil
import time
from collections import Counter
from functools import partial
from pathlib import Path

from benchmark.run.process import kill_tree

KINDS = ("images", "latents", "train", "sample", "score")
KILLS = int(os.environ.get("SRA_BENCH_KILLS", "6"))
SEED = int(os.environ.get("SRA_BENCH_KILLS_SEED", "0"))


def seconds_of(out: Path) -> dict[str, float]:
    """How long the longest stage of each kind took."""
    found = {}
    for path in out.glob("stages/*/done.json"):
        kind = path.parent.name.split("-")[0]
        found[kind] = max(found.get(kind, 0.0), json.loads(path.read_text())["seconds"])
    return found


def works(out: Path, kind: str, since: float) -> bool:
    """Whether a job of this attempt has reported progress."""
    return any(path.stat().st_mtime > since for path in out.glob(f"stages/{kind}*/heartbeat.json"))


def kill_one(suite, attempt, mode: str) -> str:
    """Kill the whole tree, the job alone, or the runner alone; returns the stage that was hit."""
    jobs = suite.children(attempt.process.pid)
    running = re.findall(r"^\[(\S+)\] to run", attempt.text(), re.MULTILINE)
    if mode == "job" and jobs:
        suite.kill(jobs)
        line = attempt.refused()
        assert "was killed by SIGKILL (out of memory?); the same command continues" in line
    elif mode == "runner":
        attempt.process.kill()
    else:
        kill_tree(attempt.process.pid)
    attempt.process.wait()
    return running[-1].split("-")[0]


def restart_finished(out: Path, kind: str) -> None:
    """Delete the stages of a kind if all are done, so that one can still be killed."""
    places = list(out.glob(f"stages/{kind}-*"))
    if all((place / "done.json").is_file() for place in places):
        for place in places:
            shutil.rmtree(place)


def test_killed_runs_continue_to_the_same_results(suite, uninterrupted: Path, tmp_path: Path) -> None:
    out, chance, hit = tmp_path / "run", random.Random(SEED), Counter()
    usual = seconds_of(uninterrupted)
    wanted = sorted((KINDS[k % len(KINDS)] for k in range(KILLS)), key=KINDS.index)
    while wanted:
        kind, mode = wanted[0], chance.choice(["tree", "job", "runner"])
        restart_finished(out, kind)
        started = time.time()
        attempt = suite.Attempt(out)
        assert attempt.starts(kind), attempt.text()
        # Half of the moments lie anywhere in the stage's usual time, which is mostly imports; half lie in its work.
        anywhere = chance.random() < 0.5 or kind == "score"
        if not anywhere:
            attempt.wait_for(partial(works, out, kind, started))
        attempt.wait_for(lambda: False, seconds=chance.uniform(0, usual[kind] * (0.8 if anywhere else 0.2)))
        if attempt.process.poll() is None:
            hit[kill_one(suite, attempt, mode), mode] += 1
            wanted.pop(0)
        else:
            # The machine is faster now than when the usual time was taken: sooner, and once more.
            attempt.succeeds()
            usual[kind] /= 2
        print(f"{kind}: {mode} after {time.time() - started:.1f} s", flush=True)
    suite.Attempt(out).succeeds()
    print(f"kills by stage and mode: {dict(hit)}")
    assert sum(hit.values()) == KILLS
    assert suite.results(out) == suite.results(uninterrupted)
