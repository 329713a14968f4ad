"""What several methods share: decisions on which buffers stay in one fast memory and when, and what follows from them.

Read `assembly.py` first (stays and homes), then `chains.py` (slots, chains, items and runs) and `decisions.py`.
"""
