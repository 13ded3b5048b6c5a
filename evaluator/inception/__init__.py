"""Inception networks from frozen TensorFlow graphs, in torch."""
