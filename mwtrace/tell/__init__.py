"""What mwtrace says, and to whom: terminals, logs, files, other programs.

Law of this room: it decides nothing. It imports ``model`` and ``errors``, never a process, a probe
or the judge, so whatever it shows was said by someone else.
"""
