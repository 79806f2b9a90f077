"""A service that leaks or is well, as its environment says: the same program restarted is the same
service. Prints "ready" and goes on until its input ends.
"""

import os
import select
import sys
import time

RATE_BYTES_PER_S = 3 << 20
STEP_S = 0.05

kept = []


def main():
    print("ready", flush=True)
    began_s = time.monotonic()
    while not select.select([sys.stdin], [], [], STEP_S)[0]:
        due_bytes = (time.monotonic() - began_s) * RATE_BYTES_PER_S
        while os.environ.get("ORDERS") == "leak" and len(kept) * 4096 < due_bytes:
            kept.append(bytes([len(kept) % 256]) * 4063)


main()
