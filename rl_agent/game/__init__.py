"""The game itself: what is decided, its rules in Python and in JAX, and the plan that a finished game makes."""
