"""The engine in this process: batched sampling with keys and values that are kept along the trees."""
