"""The named ways to run the model. Rests on tiled."""
