"""Features of image sets: extraction, cache, statistics."""
