"""Features of image sets: `extractor` (torch tools), `cache`, `statistics`, `feature_files` (of bundles)."""
