"""Keys of subjects, seeds, signing keys and names, apart from the data they protect (RULES 1, 15, 16)."""
