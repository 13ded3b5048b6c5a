"""Networks: `transformer` (SiT and DiT), `token_groups` (dual timesteps), `vae`, `weights`, `state`, `flops`."""
