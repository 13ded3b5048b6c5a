"""From a manifest to the stages of a run, with their directories, cost and disk space."""
