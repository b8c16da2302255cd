"""Recipes as values, as files and as command-line options, and the names of their components.

Ready-made recipes are in `recipes`.
"""
