"""The command `memplan`. Read `main.py`; `api/pipeline.py` ties the stages together, for the command and for the API.

Nothing here imports more than typer until a command runs: `memplan --help` is instant.
"""
