"""A plan as Kubernetes `resources`, with the settings of a cluster in `site`."""
