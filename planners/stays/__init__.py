"""What methods share: which buffers stay in one fast memory, from when to when, and what follows from that."""
