"""The report of a run: `model` is the record tree, `collect` fills it from files, `render` writes it.

`comparisons`, `claims`, `targets`, `costs` and `crosscheck` compute parts of it; `tables` and `figures` are what
templates show;
`check`, `diff`, `bundle` (without what is `private`) and `verify` are commands that read it.
"""
