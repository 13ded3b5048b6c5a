"""The report of a run: collected from its files, rendered, checked, compared, bundled and verified. Needs no GPU."""
