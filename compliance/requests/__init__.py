"""Privacy requests: how they come in, whose turn it is, and when the answer is due (Art. 12)."""
