"""Publishers and subscribers of RayFlux's classic protocol, in the proportions of its first benchmark: 1 to 4.

A message's text is "publisher number due padding": who published it, its number with that publisher (from 1), and when it
was due, in nanoseconds of the clock that all processes of this machine share. Publishers keep to a timetable, whatever the
server does, and a delivery's latency runs from the time in the message: a server that falls behind shows it.
"""

import sys
import time
from collections import defaultdict

import gevent
import websocket
from locust import FastHttpUser, User, events, task
from locust.exception import StopUser
from locust.runners import LocalRunner

from account import Sequence
from measurement import Measurement

PATIENCE = 30  # seconds for a connection to stand

measurement = None  # of the test that runs


@events.init_command_line_parser.add_listener
def options(parser):
    group = parser.add_argument_group("RayFlux")
    group.add_argument("--topics", type=int, default=10, help="topics over which users are spread evenly")
    group.add_argument("--publish-rate", type=float, default=600, help="publishes per second, all publishers together")
    group.add_argument("--payload-bytes", type=int, default=128, help="length of a message's text")
    group.add_argument("--server-pid", type=int, help="process of the server, if it is on this machine: its CPU is reported")
    group.add_argument("--figures", default=".", help="folder for summary.txt and history.csv")


class PublisherUser(FastHttpUser):
    weight = 1
    concurrency = 1  # connections

    def on_start(self):
        self.ordinal = len(measurement.publishers)
        self.last = 0  # number that was given out last
        self.doubtful = set()  # numbers that the server did not say it had accepted: they may arrive or not
        self.busy = False
        measurement.publishers.append(self)
        measurement.start_if_complete()
        measurement.started.wait()
        crowd = len(measurement.publishers)
        self.interval = crowd / measurement.options.publish_rate
        self.due = measurement.began + self.interval * self.ordinal / crowd  # one after the other, not all at once

    @task
    def publish(self):
        gevent.sleep(max(0, self.due - time.monotonic()))
        if measurement.closing:
            raise StopUser
        self.last += 1
        text = f"{self.ordinal} {self.last} {int(self.due * 1e9)} ".ljust(measurement.options.payload_bytes, ".")
        self.due += self.interval
        self.busy = True
        sent = time.monotonic()
        answer = self.client.post("/publish", json={"topic": measurement.topic(self.ordinal), "message": text})
        if answer.status_code == 200:
            measurement.published.second.add(1000 * (time.monotonic() - sent))
        else:
            self.doubtful.add(self.last)
        self.busy = False


class SubscriberUser(User):
    weight = 4

    def on_start(self):
        self.ordinal = len(measurement.subscribers)
        self.subscribed = False
        self.sequences = defaultdict(Sequence)  # by the publisher's ordinal
        measurement.subscribers.append(self)
        try:
            self.subscribe()
        except (OSError, websocket.WebSocketException) as failure:
            self.report("subscribe", exception=failure)
        measurement.start_if_complete()

    def subscribe(self):
        began = time.monotonic()
        server = self.environment.host.replace("http", "ws", 1)
        self.socket = websocket.create_connection(f"{server}/subscribe", timeout=PATIENCE)
        topic = measurement.topic(self.ordinal)
        self.socket.send(f'{{"subscriber_id":"{self.ordinal}","topic":"{topic}"}}')
        # A subscription is not answered, but commands of a connection are taken in order, and a ping is.
        self.socket.ping()
        opcode, frame = self.socket.recv_data_frame(control_frame=True)
        if opcode != websocket.ABNF.OPCODE_PONG:
            raise websocket.WebSocketException(f"subscription was answered by {frame}")
        self.socket.settimeout(None)
        self.subscribed = True
        self.report("subscribe", ms=1000 * (time.monotonic() - began))

    @task
    def read(self):
        if not self.subscribed:
            raise StopUser
        try:
            while True:
                opcode, payload = self.socket.recv_data()  # answers pings by itself
                now = time.monotonic()
                if opcode != websocket.ABNF.OPCODE_BINARY:
                    raise websocket.WebSocketException(f"got opcode {opcode} with {payload!r}, want a binary message")
                publisher, number, due, _ = payload.split(b" ", 3)
                ms = 1000 * now - int(due) / 1e6
                self.sequences[int(publisher)].take(int(number))
                measurement.delivered.second.add(ms)
                self.report("delivery", ms, len(payload))
        except (OSError, ValueError, websocket.WebSocketException) as failure:
            self.report("delivery", exception=failure)
            raise StopUser from failure

    def on_stop(self):
        if self.subscribed:
            self.socket.close()

    def report(self, name, ms=0, length=0, exception=None):
        self.environment.events.request.fire(
            request_type="WS", name=name, response_time=ms, response_length=length, exception=exception, context={}
        )


@events.init.add_listener
def one_process_only(environment, runner, **_):
    if not isinstance(runner, LocalRunner):
        sys.exit("publishers and subscribers compare their numbers at the end, so all must be of one process: no workers")


@events.test_start.add_listener
def begin(environment, **_):
    global measurement
    measurement = Measurement(environment)


@events.spawning_complete.add_listener
def spawned(**_):
    measurement.spawned()


@events.test_stopping.add_listener
def close(**_):
    measurement.close()


@events.test_stop.add_listener
def conclude(environment, **_):
    measurement.write(measurement.options.figures)
    print("\n" + measurement.summary() + "\n", flush=True)
    if measurement.verdict():
        environment.process_exit_code = 1
