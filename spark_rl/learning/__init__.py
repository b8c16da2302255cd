"""From forests to new weights: batches, updates, the training loop, the memory that it takes.

The objective itself is in `objective`, the files of a run in `runs`.
"""
