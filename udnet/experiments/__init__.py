"""What is measured beside a grid: instruments, exporters, audit, levers, locality, quality, proofs. On analysis."""
