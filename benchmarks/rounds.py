"""Rounds of turns: who is measured takes turns, and a round in which the machine was slower than it can be is measured again.

A virtual machine's processors may share a core, or no cache, for seconds, and then everything takes up to twice as long, more or less by
what threads do with each other's results. Machines that stay as they are lose nothing.
"""

import time

REST = 0.01  # s between turns: an OpenMP pool spins for some ms after its last region
FAR, SLOW = 2.5, 0.8  # times the shortest way between processors, and share of the most multiply-adds, up to which a round counts
AGAIN = 3  # times as many rounds as wanted, at most, for one workload


class Rounds:
    """How many rounds a workload has, how long a turn is, and what the machine has been seen to do."""

    def __init__(self, count, seconds):
        self.count, self.seconds = count, seconds
        self.kept = self.again = self.poor = 0
        self.ways, self.most = [], 0.0

    def as_ever(self, judge):
        """Whether processors are as near to one another and as fast as ever, as a worker finds that waits for its turn."""
        time.sleep(REST)
        gflops, way = judge.ask("peak"), judge.ask("distance")
        self.ways.append(way)
        self.most = max(self.most, gflops)
        return way <= FAR * min(self.ways) and gflops >= SLOW * self.most

    def turns(self, contestants, judge):
        """Of each of `contestants`, (worker, variant), the time in each round; every other round is in the opposite order."""
        times, rounds, good = [], 0, self.as_ever(judge)
        while len(times) < self.count:
            found = [0.0] * len(contestants)
            for i in list(range(len(contestants)))[:: -1 if rounds % 2 else 1]:
                worker, variant = contestants[i]
                time.sleep(REST)
                found[i] = worker.ask("time", variant=variant, seconds=self.seconds)
            before, good = good, self.as_ever(judge)
            rounds += 1
            if (before and good) or rounds + self.count - len(times) > AGAIN * self.count:
                times.append(found)
                self.poor += not (before and good)
        self.kept += len(times)
        self.again += rounds - len(times)
        return [list(column) for column in zip(*times, strict=True)]

    def account(self):
        """What a report says of all rounds."""
        return {"kept": self.kept, "again": self.again, "poor": self.poor, "way": min(self.ways, default=0.0), "gflops": self.most}


def sentence(account):
    """The same for people; nothing where nobody took turns."""
    if not account["kept"]:
        return ""
    counts = (
        f"{account['kept']} rounds of turns count, {account['poor']} of them in spite of this, and {account['again']} were measured again"
    )
    return (
        f"A line of memory goes from one processor to another and back in {account['way']:.0f} ns, and {account['gflops']:.0f} GFLOP/s are "
        f"the most that was seen. A round in which that took {FAR} times as long, or this was less than {SLOW:.0%}, is measured again: "
        f"{counts}."
    )
