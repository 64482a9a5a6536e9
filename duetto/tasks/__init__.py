"""Data sets by user, and the pairs of a small and a large model that belong to them."""
