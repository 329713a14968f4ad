"""The benches of `memplan bench`, one file each; `main.py` declares their arguments."""
