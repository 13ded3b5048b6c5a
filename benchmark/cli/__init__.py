"""The command line: parse options, call a function of `benchmark.commands`, print.

`main` holds the app; `cluster`, `images` and `jobs` add groups of commands; `options` are shared.
"""
