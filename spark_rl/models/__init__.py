"""Language models and tokenizers: load them, make them from scratch, save them, and choose which weights are trained.

No module here samples (`engines`) or trains (`learning`).
"""
