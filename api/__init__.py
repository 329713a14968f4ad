"""The public names of memplan."""
