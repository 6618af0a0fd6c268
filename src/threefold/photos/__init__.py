"""Pixels: a photo file in, upright RGB out, and what the network is given of it. No labels, no torch."""
