"""Text worlds: a folder or file a world, the contract as a test (`check`), replay, and the worlds by name (`registry`)."""
