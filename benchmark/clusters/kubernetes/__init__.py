"""A plan as Kubernetes `manifests`, with the settings of a cluster in `site`."""
