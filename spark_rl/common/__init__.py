"""Functions that several folders share: seeds, safe writing of files, progress, metrics.

A function belongs here when several folders use it and it does not depend on trees, models or recipes.
"""
