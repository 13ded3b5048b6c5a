"""Image sets: `image_set` reads them, `labels` finds their labels, `inspection` duplicates and blank images."""
