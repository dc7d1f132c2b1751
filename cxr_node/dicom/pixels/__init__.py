"""Pixel Data to a `Radiograph`, decoded and compressed in a process that may do nothing else."""
