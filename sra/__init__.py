"""How a diffusion transformer is trained and sampled, with and without self-representation alignment."""
