"""XLA for GPUs ahead of time, on a machine that has none."""
