"""Training: `train` is the job and its loop, `step` one optimizer step, `module` the losses.

`batches`, `optimizer`, `ema`, `nonfinite` (NaN checks), `checkpoint`, `logbook` (log, trackers, warnings).
"""
