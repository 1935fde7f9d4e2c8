"""Faster ways to compute what the layers of the network compute: kernels, and other orders of the same sums."""
