"""Fourier transforms and convolutions as matrix products."""
