"""The diffusion transformer and the image autoencoder (VAE)."""
