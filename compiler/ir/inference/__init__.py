"""Shapes that follow from operands, attributes and called computations. Read `infer.py` first."""
