"""From the path of a tree to a prompt, and from a completion to what it means.

Words that an agent reads or writes belong here. Who answers a prompt (`policies`, `engines`) does not.
"""
