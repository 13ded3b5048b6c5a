"""Files that the suite uses and does not ship: checkpoints, VAE, Inception graph, reference batches."""
