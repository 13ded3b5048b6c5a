"""Image sets: `image_set` reads them, with `shards` and `parquet`; `labels` finds their labels.

`inspection` finds duplicates and blank images.
"""
