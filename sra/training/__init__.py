"""Training: `train` is the job and its loop, `step` one optimizer step, `losses` what it minimises.

`batches`, `optimizer`, `ema`, `nonfinite` (NaN checks), `checkpoint`, `logbook` (log, trackers, warnings).
"""
