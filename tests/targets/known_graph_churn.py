"""A stable list beside threads that make and drop objects all the time.

Prints "ready", then the list's id and those of its items, then how often it went round, for ever.
"""

import json
import threading


class Item:
    def __init__(self, number):
        self.number = number


def churn():
    kept = []
    while True:
        kept.append({"item": Item(len(kept)), "more": [str(len(kept))]})
        if len(kept) > 20000:
            del kept[:15000]


STABLE = [Item(n) for n in range(5003)]
for _ in range(2):
    threading.Thread(target=churn, daemon=True).start()
print("ready", flush=True)
print(json.dumps({"list": id(STABLE), "items": [id(item) for item in STABLE]}), flush=True)
rounds = 0
while True:
    rounds += 1
    sum(range(100000))
    print(rounds, flush=True)
