"""What is measured beside a grid: instruments, exporters, audit, levers, locality, kernels, steps, quality, proofs.

On analysis.
"""
