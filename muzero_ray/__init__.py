"""MuZero: the algorithm. Plain Python, numpy, torch and numba; never imports ray."""
