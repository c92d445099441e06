"""One measurement in a fresh process, and a grid of them to tidy tables. Rests on variants."""
