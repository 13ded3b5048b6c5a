"""Container images and jobs in them.

`build` and `checks` (with `inventory`) build and verify images; `executor` starts jobs in them after `preflight`;
`engine` calls docker or podman; `settings` says which image runs what.
"""
