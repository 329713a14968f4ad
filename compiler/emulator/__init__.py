"""How long a program takes under a plan (`timing.py`, and `score.py` for a compiled module), and what it computes
(`values.py`)."""
