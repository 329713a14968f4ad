"""JAX programs as EmbeddedPrograms: `lower.py` is the entry, `fusion.py` says what is stored, `rules.py` what it is."""
