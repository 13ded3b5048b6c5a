"""A plan as Kubernetes manifests."""
