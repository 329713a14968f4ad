"""mallocMuZero: an agent that learns to win the mallocGame by playing it."""
