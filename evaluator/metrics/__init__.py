"""Metrics of features, without a framework: `frechet` (FID, sFID), `inception_score`, `precision_recall`, `intervals`.

`kernel_distance` (KID), `density_coverage`, `classes` and `extrapolation` (FID at another number of images) are computed
if named; `differences` compares two sets. `distances` computes the pairwise distances of precision and recall; `rows` is
how metrics read features.
"""
