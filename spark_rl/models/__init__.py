"""Language models and tokenizers as values: loaded, made from nothing, saved, and which of their weights are trained.

Nothing here samples (`engines`) or learns (`learning`).
"""
