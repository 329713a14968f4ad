"""What follows from a Graph alone: the flattened schedule, aliasing, live ranges. Read `program.py` first."""
