"""The hot loops. The same functions exist once a device: `reference` (NumPy, float64) and `cpu` (Numba)."""
