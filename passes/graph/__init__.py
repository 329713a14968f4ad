"""Passes over Graphs, one file a pass."""
