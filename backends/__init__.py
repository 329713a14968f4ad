"""Compilers that carry a plan out."""
