"""Erasure, place by place, and the signed receipt of what is gone, what stays and why (Art. 17)."""
