"""The pool on machines with kernels of their own."""
