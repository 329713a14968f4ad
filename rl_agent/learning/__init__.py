"""The agent: it learns values of the moves of a mallocGame by playing it."""
