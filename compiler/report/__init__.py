"""What a plan is worth, for people and for machines. Read `report.py`; the other files show what it holds."""
