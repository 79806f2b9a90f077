"""What a process's memory is made of, and who holds it, read from outside.

Law of this room: nothing here stops, signals or writes to a process, and nothing reads a page that
is not present in it. What was measured and what was inferred is said apart.
"""
