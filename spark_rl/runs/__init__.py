"""What a run leaves on disk, and reads again: its directory, forests, checkpoints; and other places that its log goes to."""
