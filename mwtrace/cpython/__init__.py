"""What lies where in a CPython process, read from outside; the target runs none of our code."""
