"""Tidy tables to numbers: scaling laws, capacity, the report's claims. Rests on trials."""
