"""Slow proofs: commands of their own, whose results files are committed beside them."""
