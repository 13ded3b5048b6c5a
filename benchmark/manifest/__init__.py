"""Manifests: from YAML to a validated, frozen `Run` per variant."""
