"""The exact tiled schedule: passes, plans, streams of rows, kernels. Rests on network."""
