"""Every task exactly as often as asked: playing, choosing a leaf, keeping episodes, intervals and tables."""
