"""For developers of the evaluator: plain reference numerics, timings, studies."""
