"""Images and latents: reading, preparing, loading."""
