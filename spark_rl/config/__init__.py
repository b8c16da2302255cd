"""Recipes: what a run is, its components by name, and how both become files and command-line options.

Ready-made recipes are in `recipes`.
"""
