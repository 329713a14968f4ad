"""Layer fusion: which instructions run as one, tile by tile, so that what is between them stays in fast memory."""
