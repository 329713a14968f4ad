"""What a program is, and what a plan of it means.

The stages, each of which imports only stages before it:

    ir -> frontends -> analysis -> hardware -> mapping -> emulator -> report

Beside them stand what all may import: `errors.py`, `registry.py`, `files.py`, `kernels.py` and `lazy.py`.
"""
