"""Rounds of turns: who is measured takes turns, and a round in which the machine was slower than it can be is measured again.

A virtual machine's processors may share a core, or no cache, for seconds, and then everything takes up to twice as long, more or less by
what threads do with each other's results. To look takes some 20 ms a round.
"""

import time

REST = 0.01  # s between turns: an OpenMP pool spins for some ms after its last region
FAR, SLOW = 2.5, 0.8  # of the shortest way between processors, and of the most multiply-adds: a round counts up to, and from, there
AGAIN = 3  # times as many rounds as wanted, at most, for one workload


class Rounds:
    """How many rounds a workload has, how long a turn is, and what the machine has been seen to do."""

    def __init__(self, count, seconds):
        self.count, self.seconds = count, seconds
        self.kept = self.again = self.poor = 0
        self.way, self.most = 0.0, 0.0

    def at_its_best(self, judge):
        """Whether processors are as near to one another, and as fast, as they have been so far, as a worker finds that waits for its turn.

        Two that share a core are very near, and slow: their way is none to compare with.
        """
        time.sleep(REST)
        gflops, way = judge.ask("peak"), judge.ask("distance")
        self.most = max(self.most, gflops)
        if gflops < SLOW * self.most:
            return False
        self.way = min(self.way or way, way)
        return way <= FAR * self.way

    def turns(self, contestants, judge):
        """Of each of `contestants`, (worker, variant), the time in each round; every other round is in the opposite order."""
        times, rounds, good = [], 0, self.at_its_best(judge)
        while len(times) < self.count:
            found = [0.0] * len(contestants)
            for i in list(range(len(contestants)))[:: -1 if len(times) % 2 else 1]:
                worker, variant = contestants[i]
                time.sleep(REST)
                found[i] = worker.ask("time", variant=variant, seconds=self.seconds)
            before, good = good, self.at_its_best(judge)
            rounds += 1
            if (before and good) or rounds + self.count - len(times) > AGAIN * self.count:
                times.append(found)
                self.poor += not (before and good)
        self.kept += len(times)
        self.again += rounds - len(times)
        return [list(column) for column in zip(*times, strict=True)]

    def account(self):
        """What a report says of all rounds."""
        return {"kept": self.kept, "again": self.again, "poor": self.poor, "way": self.way, "gflops": self.most}


def sentence(account):
    """The same for people; nothing where nobody took turns."""
    if not account["kept"]:
        return ""
    way = f"A line of memory goes from one processor to another and back in {account['way']:.0f} ns. " if account["way"] else ""
    return (
        f"{way}The most multiply-adds that were seen are {account['gflops']:.0f} GFLOP/s. A round in which "
        f"{f'that took {FAR} times as long, or ' if way else ''}there were less than {SLOW:.0%} of these, is measured again: "
        f"{account['kept']} rounds count, {account['poor']} of them in spite of this, and {account['again']} were measured again."
    )
