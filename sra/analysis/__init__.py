"""Analysis of trained networks: PCA pictures and linear probes of their features."""
