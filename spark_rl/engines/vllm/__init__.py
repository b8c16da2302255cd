"""vLLM as an engine: its scheduler, its paged cache, and this package's own draw of tokens."""
