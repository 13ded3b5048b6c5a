"""Metrics of features, without a framework: `frechet` (FID, sFID), `inception_score`, `precision_recall`, `intervals`.

`distances` computes the pairwise distances of precision and recall; `rows` is how metrics read features.
"""
