"""Training objectives: `flow` (SiT's flow matching) and `ddpm` (DiT), behind the interface in `base`."""
