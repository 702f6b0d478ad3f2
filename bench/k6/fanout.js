// What websocket.js and http.js share: the subscribers, the metrics, the thresholds and the report. They differ in how
// publishers publish.
//
// A message is {"publisher":3,"number":17,"due":1234.567,"last":false,"padding":"…"}: who published it, its number with that
// publisher (from 1), when it was due, in milliseconds of the test's clock, and whether it is the publisher's last.
// Publishers keep to a timetable, whatever the server does, and a delivery's latency runs from the time in the message: a
// server that falls behind shows it.

import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import { WebSocket } from 'k6/websockets';
import { sleep } from 'k6';

import { Sequence } from './account.js';

const users = whole('USERS', 200);
const publishers = Math.floor(users / 5); // 1 to 4, as in the first benchmark
const subscribers = users - publishers;
const topics = whole('TOPICS', 10);
const rate = whole('RATE', 300); // publishes per second, all publishers together
const seconds = whole('DURATION', 60);
const payloadBytes = whole('PAYLOAD_BYTES', 128);
const p95Limit = whole('P95', 100); // milliseconds
const patience = 15; // seconds for all to be subscribed before, and for deliveries to come in after, the publishing
export const server = __ENV.SERVER || '127.0.0.1:8080';

const published = new Counter('published');
const publishLatency = new Trend('publish_latency', true);
const publishFailures = new Counter('publish_failures');
const delivered = new Counter('delivered');
const deliveryLatency = new Trend('delivery_latency', true);
const lost = new Counter('delivery_lost');
const repeated = new Counter('delivery_repeated');
const reordered = new Counter('delivery_reordered');
const finishedPublishers = new Counter('finished_publishers');
const finishedSubscribers = new Counter('finished_subscribers');

export const options = {
  scenarios: {
    subscribers: once('subscribe', subscribers),
    publishers: once('publish', publishers),
  },
  thresholds: {
    publish_latency: [`p(95)<${p95Limit}`],
    delivery_latency: [`p(95)<${p95Limit}`],
    publish_failures: ['count==0'],
    delivery_lost: ['count==0'],
    delivery_repeated: ['count==0'],
    delivery_reordered: ['count==0'],
    // A user that broke off counted nothing, so it has to be missed.
    finished_publishers: [`count==${publishers}`],
    finished_subscribers: [`count==${subscribers}`],
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

// whole reads a number from the environment; "60s" is 60.
function whole(name, fallback) {
  const text = __ENV[name] || String(fallback);
  const value = Number(text.replace(/s$/, ''));
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`${name} is "${text}", want a whole number above 0`);
  }
  return value;
}

// once is a scenario whose users do one thing until the end.
function once(does, vus) {
  return {
    executor: 'per-vu-iterations', iterations: 1, vus, exec: does,
    maxDuration: `${seconds + 3 * patience}s`, gracefulStop: '0s',
  };
}

// now is the test's clock, the same for all users and finer than Date's, in milliseconds.
export function now() {
  return exec.instance.currentTestRunDuration;
}

if (publishers < topics) {
  // A subscriber that hears no publisher could not tell the end.
  throw new Error(`${users} users are ${publishers} publishers, want one for each of ${topics} topics`);
}

// setup names the run: topics of its own keep what an earlier run left out of this one.
export function setup() {
  if (http.get(`http://${server}/healthz`).status !== 200) {
    exec.test.abort(`nobody at ${server} can serve`);
  }
  return { run: `k6-${Date.now().toString(36)}` };
}

// Subscribers tell each other's publishers that they are there through RayFlux itself: one message each to this topic.
function hereTopic(run) {
  return `${run}-here`;
}

function waitForSubscribers(run) {
  const deadline = now() + 1000 * patience;
  for (;;) {
    const answer = http.get(`http://${server}/v1/topics/${hereTopic(run)}/messages?last=1`);
    if (answer.status === 200 && answer.json('head') >= subscribers) {
      return;
    }
    if (answer.status === 0 || now() > deadline) {
      exec.test.abort(`not all of ${subscribers} subscribers came within ${patience} s`);
    }
    sleep(0.05);
  }
}

// Publisher is one publisher's timetable.
export class Publisher {
  constructor(run) {
    this.ordinal = exec.scenario.iterationInTest;
    this.topic = `${run}-${this.ordinal % topics}`;
    this.interval = (1000 * publishers) / rate;
    this.number = 0;
    waitForSubscribers(run);
    this.end = now() + 1000 * seconds;
    // One after the other, not all at once.
    this.due = now() + (this.interval * this.ordinal) / publishers;
  }

  // wait is the milliseconds until the next message is due.
  wait() {
    return Math.max(0, this.due - now());
  }

  // next makes the next message.
  next() {
    const due = this.due;
    this.due += this.interval;
    this.number++;
    const message = { publisher: this.ordinal, number: this.number, due, last: this.due >= this.end, padding: '' };
    message.padding = '.'.repeat(Math.max(0, payloadBytes - JSON.stringify(message).length));
    return message;
  }

  published(ms) {
    published.add(1);
    publishLatency.add(ms);
  }

  failed(why) {
    publishFailures.add(1);
    console.error(`publisher ${this.ordinal}: ${why}`);
  }

  finished() {
    finishedPublishers.add(1);
    publishFailures.add(0); // a threshold on a metric without samples would hold by default
  }
}

// subscribe is a subscriber's life: until each publisher of its topic has said its last.
export function subscribe({ run }) {
  const ordinal = exec.scenario.iterationInTest;
  const topic = `${run}-${ordinal % topics}`;
  const heard = new Map(); // Sequence by publisher
  for (let p = ordinal % topics; p < publishers; p += topics) {
    heard.set(p, new Sequence());
  }
  const socket = new WebSocket(`ws://${server}/ws`, ['rayflux.v1.json']);
  const deadline = setTimeout(() => {
    console.error(`subscriber ${ordinal}: not everything came within ${patience} s`);
    socket.close();
  }, 1000 * (seconds + 2 * patience));

  const receive = {
    welcome() {},
    subscribed() {
      socket.send(JSON.stringify({ op: 'publish', topic: hereTopic(run), data: ordinal }));
    },
    message({ data }) {
      delivered.add(1);
      deliveryLatency.add(now() - data.due);
      heard.get(data.publisher).take(data);
      if (data.last && complete(heard)) {
        socket.close();
      }
    },
  };
  let broken = false;
  socket.onopen = () => socket.send(JSON.stringify({ op: 'subscribe', id: 1, topic }));
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (receive[event.op]) {
      receive[event.op](event);
    } else {
      broken = true; // a gap, an error, a drain: none has a place in this test
      console.error(`subscriber ${ordinal} got ${data}`);
    }
  };
  socket.onerror = ({ error }) => console.error(`subscriber ${ordinal}: ${error}`);
  socket.onclose = () => {
    clearTimeout(deadline);
    for (const sequence of heard.values()) {
      lost.add(sequence.lost());
      repeated.add(sequence.repeated);
      reordered.add(sequence.reordered);
    }
    if (complete(heard) && !broken) {
      finishedSubscribers.add(1);
    }
  };
}

function complete(heard) {
  return [...heard.values()].every((sequence) => sequence.ended);
}

// summary is handleSummary of the script of that name: text and JSON, in the folder REPORTS.
export function summary(name) {
  return (data) => {
    const text = summaryText(name, data.metrics);
    const folder = __ENV.REPORTS || '.';
    return { stdout: text, [`${folder}/${name}.txt`]: text, [`${folder}/${name}.json`]: JSON.stringify(data, null, 2) };
  };
}

function summaryText(name, metrics) {
  const values = (metric) => (metrics[metric] ? metrics[metric].values : {});
  const row = (cells) => cells[0].padEnd(12) + cells.slice(1).map((cell) => String(cell).padStart(10)).join('');
  const count = (metric) => values(metric).count || 0;
  const figures = (label, n, { med = 0, max = 0, 'p(95)': p95 = 0, 'p(99)': p99 = 0 }) =>
    row([label, n, (n / seconds).toFixed(1), ...[med, p95, p99, max].map((ms) => ms.toFixed(2))]);
  const crossed = Object.entries(metrics).flatMap(([metric, { thresholds = {} }]) =>
    Object.keys(thresholds).filter((t) => !thresholds[t].ok).map((t) => `${metric} is not ${t}`));
  return [
    `k6 ${name}.js: ${publishers} publishers, ${subscribers} subscribers, ${topics} topics, ${payloadBytes} bytes, ` +
      `${rate} publishes/s asked for, ${seconds} s`,
    row(['', 'count', 'per s', 'p50 ms', 'p95 ms', 'p99 ms', 'max ms']),
    figures('publishes', count('published'), values('publish_latency')),
    figures('deliveries', count('delivered'), values('delivery_latency')),
    `lost ${count('delivery_lost')}, repeated ${count('delivery_repeated')}, reordered ${count('delivery_reordered')}; ` +
      `failed publishes ${count('publish_failures')}; ` +
      `${count('finished_publishers')} publishers and ${count('finished_subscribers')} subscribers came to their end`,
    crossed.length ? `FAILED: ${crossed.join('; ')}` : 'passed',
    '',
  ].join('\n');
}
