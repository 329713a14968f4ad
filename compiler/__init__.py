"""What a program is, and what a plan of it means.

The stages, each of which imports only stages before it:

    ir -> frontends -> analysis -> hardware -> mapping -> emulator -> report

Beside them stands what all may import, such as `errors.py`, `files.py`, `cache.py` and `kernels.py`.
"""
