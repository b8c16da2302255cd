"""From forests to new weights: batches, updates, the training loop, and the memory that a run needs.

The objective is in `objective`, the files of a run are in `runs`.
"""
