"""Metrics of features, without a framework: `frechet` (FID, sFID), `inception_score`, `precision_recall`, `intervals`.

Computed if named: `kernel_distance` (KID), `density_coverage`, `classes`, `extrapolation` (FID at another number of
images), `memorisation` (copies of training images). `differences` compares two sets. `distances` computes pairwise
distances; `rows` is how metrics read features, `backend` where their products are computed (`torch_backend`: on a GPU).
"""
