"""Export packages: what a person gets of its data, and how anybody checks that it is whole (Art. 15, 20)."""
