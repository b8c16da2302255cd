"""Algorithms side by side: cells (one seed, one arm) are run and kept, curves compared, tables and plots made."""
