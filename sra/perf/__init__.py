"""Speed of this machine: `python -m sra.perf {latents,train,sample,all,scaling}`.

`--mode fast` is what the jobs do, `--mode reference` what the authors' public code does, by switches over the same
code; `--compare` measures two modes alternately. See docs/performance.md. `cases` chooses what is measured, `session`
measures it, with `workloads` and `timing`; `results` writes it.
"""
