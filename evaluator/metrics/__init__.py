"""Metrics of features: FID, sFID, Inception score, precision, recall, intervals."""
