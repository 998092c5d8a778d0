"""Evidence for authorities: what a model claims, and the record of processing (Art. 5(2), 30)."""
