"""How fast this machine is: `python -m sra.perf {latents,train,sample,all,scaling}`. Needs torch and numpy alone.

`--mode fast` is what the jobs do, `--mode reference` what the authors' public code does, as named switches over the
same code; `--compare` measures two modes alternately in one run. See docs/performance.md.
"""
