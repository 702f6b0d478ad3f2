// Publishers over HTTP, one request at a time on a kept-alive connection each.

import { sleep } from 'k6';
import http from 'k6/http';

import { Publisher, server, summary } from './fanout.js';

export { options, setup, subscribe } from './fanout.js';
export const handleSummary = summary('http');

export function publish({ run }) {
  const publisher = new Publisher(run);
  const url = `http://${server}/v1/topics/${publisher.topic}/messages`;
  const params = { headers: { 'Content-Type': 'application/json' } };
  for (let last = false; !last; ) {
    sleep(publisher.wait() / 1000);
    const message = publisher.next();
    last = message.last;
    const answer = http.post(url, JSON.stringify(message), params);
    if (answer.status === 200) {
      publisher.published(answer.timings.duration);
    } else {
      publisher.failed(`${answer.status} ${answer.error || answer.body}`);
    }
  }
  publisher.finished();
}
