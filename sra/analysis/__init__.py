"""What a trained network has learned: PCA pictures and linear probes of its features."""
