"""One process and its machine: memory, limits, files written whole. Rests on nothing."""
