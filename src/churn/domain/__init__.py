"""Pure functions and types: standard library and NumPy, no input or output."""
