"""Learning from rows and pairs through TRL: the cold start, DPO, and the baseline ETO that is made of both."""
