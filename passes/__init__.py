"""Rewrites of programs, one file a pass."""
