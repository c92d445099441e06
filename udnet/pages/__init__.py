"""What people read: plots, notebooks, reports. Rests on everything else."""
