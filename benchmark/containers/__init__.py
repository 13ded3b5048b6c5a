"""Container images: how they are built, checked and run."""
