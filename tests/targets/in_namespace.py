"""A container in small: PID 1 of a pid namespace, with a child that leaks, and one line at a time.

Run by ``unshare --pid --fork --mount-proc``. Prints "ready" and the child's pid as it is called in
here; then, for each line, runs mwtrace with the words of it and prints what that said as a line of
JSON. PID_OF_CHILD in a line is that pid.
"""

from __future__ import annotations

import json
import subprocess
import sys

child = subprocess.Popen(
    [sys.executable, "-m", "mwtrace", "demo", "leak-native", "--rate", "4M"],
    stdout=subprocess.PIPE,
    text=True,
)
assert child.stdout
assert child.stdout.readline().startswith("ready")
print("ready", child.pid, sep="\n", flush=True)
for line in sys.stdin:
    words = line.replace("PID_OF_CHILD", str(child.pid)).split()
    done = subprocess.run(
        [sys.executable, "-m", "mwtrace", *words], capture_output=True, text=True, timeout=60
    )
    print(json.dumps({"code": done.returncode, "out": done.stdout, "err": done.stderr}), flush=True)
child.kill()
child.wait()
