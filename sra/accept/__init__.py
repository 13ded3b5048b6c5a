"""Acceptance test of a machine before a long run: `python -m sra.accept`.

Every stage is a process of its own with a time limit, so that a stage that hangs or dies costs only itself. The result
is one JSON file, written after each stage, and a last page that says whether the machine is ready, and why not.

`record` is that file and its text; `stage` what all stages share; `device` tests hardware and ceilings, `numbers` the
arithmetic against the CPU and the golden numbers, `speed` training, sampling and decoding, `jobs` whole jobs, scoring,
several processes and the disk; `collectives` is one process of the all-reduce test.
"""
