"""Demonstrations and other recorded trajectories: their file format, checks, profiles, pairs, and teachers' reasons."""
