"""Leaks objects in one line, churns in another; prints "ready", acts on lines with a number.

Each line N leaks N objects of 333 bytes and makes and drops as many of 83; then "done". Both are
pymalloc's, which keeps sizes apart by the page. Where churn and leak take from the same fresh
pages (one size class, or glibc's heap), whoever touches them first would be blamed.
"""

import sys

kept = []


def leak():
    kept.append(bytes(300))


def churn():
    return bytes(50)


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            leak()
            churn()
        print("done", flush=True)


main()
