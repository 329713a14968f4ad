"""Plans that fit a program into a memory limit: keep, recompute, move to the host, or reorder."""
