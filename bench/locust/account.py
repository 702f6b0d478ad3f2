"""What subscribers saw, counted without Locust: holes, repeats and reordering, and latencies finer than its milliseconds."""

from bisect import bisect_left
from itertools import accumulate


class Sequence:
    """One subscriber's place in one publisher's numbers, which count from 1."""

    __slots__ = ("next", "missing", "repeated", "reordered")

    def __init__(self):
        self.next = 1
        self.missing = set()
        self.repeated = 0
        self.reordered = 0

    def take(self, number):
        if number == self.next:
            self.next += 1
        elif number > self.next:
            self.missing.update(range(self.next, number))
            self.next = number + 1
        elif number in self.missing:
            self.missing.remove(number)
            self.reordered += 1
        else:
            self.repeated += 1

    def lost(self, last, doubtful):
        """How many numbers up to last never came, those left out that the server did not say it had accepted."""
        return len((self.missing | set(range(self.next, last + 1))) - doubtful)


class Latencies:
    """A histogram of milliseconds. Locust's own rounds to whole ones, which is all there is on loopback."""

    STEP = 0.02  # ms; the resolution

    def __init__(self):
        self.count = 0
        self.most = 0.0
        self.buckets = {}

    def add(self, ms):
        self.count += 1
        if ms > self.most:
            self.most = ms
        bucket = int(ms / self.STEP)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other):
        self.count += other.count
        self.most = max(self.most, other.most)
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def percentiles(self, *fractions):
        """The upper ends of the buckets in which the fractions fall; zeros when nothing was measured."""
        if not self.count:
            return [0.0] * len(fractions)
        order = sorted(self.buckets)
        below = list(accumulate(self.buckets[b] for b in order))
        return [min(self.most, self.STEP * (1 + order[bisect_left(below, f * self.count)])) for f in fractions]
