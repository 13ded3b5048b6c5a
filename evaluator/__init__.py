"""How good images are: the ADM protocol, clean-fid and torch-fidelity."""
