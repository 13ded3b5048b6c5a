"""Features of image sets: `extractor` (torch tools), `cache`, `statistics`, `feature_files` (of bundles)."""

CHUNK_IMAGES = 256
"""Images per file of cached features: four batches."""
