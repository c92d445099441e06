"""What is measured beside a grid: instruments, exporters, audit, levers, locality, convolutions, quality, proofs.

On analysis.
"""
