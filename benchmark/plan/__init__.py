"""The plan of a run: `request` is what is asked for, `prepare` checks it, `plan` turns it into `stages`.

`inputs` tells whether an input from outside of the run is the same as before. `run_directory`, `saved_plan` and
`records` are the files of a run; `cost` and `counts` estimate hours, memory and disk space.
"""
