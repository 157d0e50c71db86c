"""What `src/compare.py` does: the distances of two pictures, of two folders, and within one."""
