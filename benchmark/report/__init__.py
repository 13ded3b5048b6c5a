"""The report of a run: `model` is the record tree, `collect` fills it from files, `render` writes it.

`comparisons`, `costs` and `crosscheck` compute parts of it; `tables` and `figures` are what the templates show;
`check`, `diff`, `bundle` and `verify` are commands that read it.
"""
