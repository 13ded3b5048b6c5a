"""The command line: parse options, call a function of `benchmark.commands`, print.

`main` holds the app; `cluster`, `images`, `jobs` and `render` add groups of commands; `options` are shared.
"""
