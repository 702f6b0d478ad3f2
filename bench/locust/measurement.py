"""One test from its first user to its verdict: who takes part, from when to when it counts, and what was counted."""

import csv
import os
import time

import gevent
import psutil
from gevent.event import Event

from account import Latencies

LIMIT = 90  # percent of a processor; Locust is one thread, and above this its figures are about itself
OTHERS = 20  # percent of a processor; what others may use before they are in the figures
DRAIN = 5  # seconds after the last publish; a delivery that has not come by then is lost


class Stream:
    """The latencies of publishes or of deliveries: those of the second that runs, and all before it."""

    def __init__(self):
        self.total, self.second = Latencies(), Latencies()

    def turn(self):
        """Ends a second and returns it."""
        ended, self.second = self.second, Latencies()
        self.total.merge(ended)
        return ended


class Usage:
    """CPU time between turns, in percent of one processor; read returns the seconds used so far."""

    def __init__(self, read):
        self.read = read
        self.first = self.last = self.now()

    def now(self):
        return time.monotonic(), self.read()

    def turn(self):
        before, self.last = self.last, self.now()
        return percent(before, self.last)

    def mean(self):
        """Over all turns."""
        return percent(self.first, self.last)


def percent(a, b):
    return 100 * (b[1] - a[1]) / max(b[0] - a[0], 0.001)


def process(pid=None):
    """Reads a process's CPU seconds, this one's without pid."""
    p = psutil.Process(pid)

    def read():
        nonlocal seconds
        try:
            seconds = sum(p.cpu_times()[:2])  # user and system, without children
        except psutil.NoSuchProcess:
            pass  # the server is gone: it uses no more, and what it left undone shows elsewhere
        return seconds

    seconds = 0
    return read


def machine():
    """The CPU seconds of everything that runs here."""
    t = psutil.cpu_times()
    return t.user + t.nice + t.system + t.irq + t.softirq + t.steal


class Measurement:
    """Belongs to Locust's one thread: nothing here waits between a look and the change that depends on it."""

    def __init__(self, environment):
        self.environment, self.options = environment, environment.parsed_options
        # Topics of its own: what an earlier test left on its way would be numbers out of order in this one.
        self.prefix = f"locust-{os.getpid():x}-{time.time_ns() // 1_000_000:x}"
        self.publishers, self.subscribers = [], []
        self.crowd = None  # how many of each there will be; known once Locust has spawned them
        self.started = Event()  # every subscription stands, so that no publish can come too early for one
        self.closing = False
        self.published, self.delivered = Stream(), Stream()
        self.history = []  # a row for each second, see write
        self.began = self.ended = None
        self.watcher = self.locust = self.server = self.machine = None

    def topic(self, ordinal):
        return f"{self.prefix}-{ordinal % self.options.topics}"

    def sources(self, subscriber):
        """The publishers that a subscriber hears."""
        return self.publishers[subscriber.ordinal % self.options.topics :: self.options.topics]

    # From the first user to the last second

    def spawned(self):
        counts = self.environment.runner.user_classes_count
        self.crowd = counts.get("PublisherUser", 0), counts.get("SubscriberUser", 0)
        self.start_if_complete()

    def start_if_complete(self):
        if self.closing or self.started.is_set() or (len(self.publishers), self.subscribed()) != self.crowd:
            return  # who comes later was not counted on, and stays unheard
        self.locust = Usage(process())
        if self.options.server_pid:
            self.server, self.machine = Usage(process(self.options.server_pid)), Usage(machine)
        self.began = time.monotonic()
        self.watcher = gevent.spawn(self.watch)
        self.started.set()

    def subscribed(self):
        return sum(s.subscribed for s in self.subscribers)

    def watch(self):
        while not self.closing:
            gevent.sleep(1)
            self.turn()

    def turn(self):
        row = [f"{time.monotonic() - self.began:.3f}"]
        for stream in (self.published, self.delivered):
            second = stream.turn()
            row += [second.count, *(f"{p:.2f}" for p in second.percentiles(0.50, 0.95, 0.99))]
        row.append(f"{self.locust.turn():.0f}")
        row.append(f"{self.server.turn():.0f}" if self.server else "")
        self.history.append(row)

    def close(self):
        """Ends publishing, and waits until what was published has arrived."""
        if self.closing:
            return
        self.closing = True
        if not self.started.is_set():
            return
        self.ended = time.monotonic()
        self.watcher.kill()
        self.turn()
        if self.machine:
            self.machine.turn()
        deadline = self.ended + DRAIN
        while time.monotonic() < deadline and (any(p.busy for p in self.publishers) or self.lost()):
            gevent.sleep(0.01)
        for stream in (self.published, self.delivered):
            stream.turn()

    # The figures

    def lost(self):
        return sum(s.sequences[p.ordinal].lost(p.last, p.doubtful) for s in self.subscribers for p in self.sources(s))

    def faults(self):
        every = [q for s in self.subscribers for q in s.sequences.values()]
        return {
            "lost": self.lost(),
            "repeated": sum(q.repeated for q in every),
            "reordered": sum(q.reordered for q in every),
        }

    def verdict(self):
        """What went wrong, in words; nothing when nothing did."""
        if not self.started.is_set():
            publishers, subscribers = self.crowd or (0, 0)
            return [
                f"{len(self.publishers)} of {publishers} publishers and {self.subscribed()} of {subscribers} subscribers "
                "came, so nothing was published"
            ]
        wrong = [f"{count} deliveries {what}" for what, count in self.faults().items() if count]
        if not self.delivered.total.count:
            wrong.append("nothing was delivered")
        if failures := sum(e.occurrences for e in self.environment.stats.errors.values()):
            wrong.append(f"{failures} requests failed")
        if exceptions := self.environment.runner.exceptions:
            wrong.append(f"{sum(e['count'] for e in exceptions.values())} exceptions in the users' code")
        return wrong

    def summary(self):
        o, wrong = self.options, self.verdict()
        lines = [
            f"Locust: {len(self.publishers)} publishers, {len(self.subscribers)} subscribers, {o.topics} topics, "
            f"{o.payload_bytes} bytes, {o.publish_rate:g} publishes/s asked for"
        ]
        if self.started.is_set():
            seconds = self.ended - self.began
            lines[0] += f", {seconds:.1f} s"
            lines.append(f"{'':12}{'count':>10}{'per s':>10}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'max ms':>10}")
            for name, stream in ("publishes", self.published), ("deliveries", self.delivered):
                t = stream.total
                figures = "".join(f"{f:>10.2f}" for f in (*t.percentiles(0.50, 0.95, 0.99), t.most))
                lines.append(f"{name:12}{t.count:>10}{t.count / seconds:>10.1f}{figures}")
            lines.append(", ".join(f"{what} {count}" for what, count in self.faults().items()))
            lines += self.usages()
        lines.append("FAILED: " + "; ".join(wrong) if wrong else "passed")
        return "\n".join(lines)

    def usages(self):
        locust = self.locust.mean()
        line = f"CPU, percent of one processor: Locust {locust:.0f}"
        others = 0
        if self.server:
            server = self.server.mean()
            others = max(0, self.machine.mean() - locust - server)
            line += f", server {server:.0f}, others {others:.0f}"
        yield line
        if above := sum(float(row[-2]) > LIMIT for row in self.history):
            yield (
                f"Locust was above {LIMIT} % in {above} of {len(self.history)} seconds: there it was the limit, and rates and "
                "latencies are Locust's own, not the server's"
            )
        if others > OTHERS:
            yield "Others were busy on this machine: latencies are theirs too, so measure again when it is quiet"

    def write(self, folder):
        """Leaves the summary, and the history that Locust's own cannot be: finer than a millisecond, and with the CPUs."""
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "summary.txt"), "w", encoding="utf-8") as f:
            f.write(self.summary() + "\n")
        with open(os.path.join(folder, "history.csv"), "w", encoding="utf-8", newline="") as f:
            streams = [f"{s}{column}" for s in ("publishes", "deliveries") for column in ("", "_p50_ms", "_p95_ms", "_p99_ms")]
            table = csv.writer(f)
            table.writerow(["seconds", *streams, "locust_cpu_percent", "server_cpu_percent"])
            table.writerows(self.history)
