"""For developers of the evaluator: `plain_numerics` (reference numerics), `perf`, `interval_coverage`."""
