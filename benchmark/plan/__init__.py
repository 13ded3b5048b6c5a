"""The plan of a run: `plan` turns a manifest into the `stages`.

`run_directory` and `saved_plan` are its files; `cost` and `counts` estimate hours, memory and disk space.
"""
