"""Growing trees: the paper's algorithm, its states and budget, and the numbers that describe a forest.

Where a tree forks is a rule of `branching`; which credit its steps get is in `advantage`.
"""
