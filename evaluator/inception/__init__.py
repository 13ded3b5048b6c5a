"""Inception from frozen TensorFlow graphs, in torch.

`graph` finds the file, `graphdef` parses it, `convert` extracts the `network`.
"""
