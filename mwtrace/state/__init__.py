"""What outlives the process: one SQLite file, written by a thread of its own.

Law of this room: it never delays a tick and never stops the start. What cannot be written is
counted and tried again; what cannot be read is set aside and told. It must not know what a
process or a verdict is: it keeps bytes and texts.
"""
