"""What every folder needs and none owns: seeds, safe writing of files, progress.

A function belongs here when several folders use it and it knows nothing of trees, models or recipes.
"""
