"""The command line: parse, call a function of `benchmark.commands`, print."""
