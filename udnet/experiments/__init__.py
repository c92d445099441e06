"""Measured beside a grid: instruments, exporters, audit, levers, locality, convolutions, steps, quality, proofs.

On analysis.
"""
