"""Image sets: `image_set` reads them, `inspection` finds duplicates and blank images."""
