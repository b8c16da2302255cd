"""Prompts from the paths of trees, and the parsing of completions.

The words that an agent reads or writes belong here; policies and engines, which answer prompts, do not.
"""
