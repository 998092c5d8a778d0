"""What must be kept and what must go: legal holds and retention (Art. 5(1)(e), 17(3))."""
