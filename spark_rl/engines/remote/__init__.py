"""Models that run elsewhere and are trained here: token ids go out, token ids and log-probabilities come back."""
