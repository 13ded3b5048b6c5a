"""Manifests: from YAML to a validated, frozen `Run` per variant.

`document` reads the YAML, `schema` validates it, `reference` describes its keys, `smoke_form` scales it down;
`from_sra` converts the authors' command lines by the tables in `sra_flags`.
"""
