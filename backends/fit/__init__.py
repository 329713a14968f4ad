"""Programs that fit into a memory limit, by the word of the compiler."""
