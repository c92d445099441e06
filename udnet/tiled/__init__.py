"""The exact tiled schedule: passes, plans, streams of rows, kernels, the scratch file. Rests on network."""
