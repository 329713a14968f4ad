"""The hardware: targets, and what instructions cost on them. Read `target.py`, then `calibration.py`."""
