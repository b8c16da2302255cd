"""More than one process: ranks that grow and learn together."""
