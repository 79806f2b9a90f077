"""Makes ``import mwtrace_hook`` work where this folder is on PYTHONPATH: runs ../hook.py.

Copied anywhere else, copy hook.py itself under this name: it needs nothing besides.
"""

import os

__file__ = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "hook.py")
with open(__file__, "rb") as _file:
    exec(compile(_file.read(), __file__, "exec"))
