"""Text worlds: a folder for each world, the contract as a test (`check`), replays, and the worlds by name (`registry`)."""
