"""Programs in JAX as problems of fitting into a memory limit, and plans for these problems as programs again."""
