"""Compiled kernels, one a module, each optional: where it cannot be built, torch does the same sums."""
