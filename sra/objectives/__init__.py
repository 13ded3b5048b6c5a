"""Training objectives: SiT's flow matching and DiT's DDPM."""
