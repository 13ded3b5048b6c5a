"""Speed of this machine: `python -m sra.perf {latents,train,sample,all,scaling}`. Needs torch, numpy, pydantic alone.

`--mode fast` is what the jobs do, `--mode reference` what the authors' public code does, by switches over the same
code; `--compare` measures two modes in turn. See docs/performance.md.
"""
