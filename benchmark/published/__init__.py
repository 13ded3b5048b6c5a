"""Published numbers: `registry` loads published.yaml into the records of `schema`, `listing` prints them.

`comparability` decides whether a run may be compared with a row, `verdict` what the comparison says, `early` what the
first images of a run say.
"""
