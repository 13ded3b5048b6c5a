"""The scoring tools, each a program: ADM on TensorFlow or torch, clean-fid, torch-fidelity."""
