// Publishers on the native protocol, JSON over a WebSocket; a publish counts from its sending to its answer.

import { WebSocket } from 'k6/websockets';

import { Publisher, now, server, summary } from './fanout.js';

export { options, setup, subscribe } from './fanout.js';
export const handleSummary = summary('websocket');

export function publish({ run }) {
  const publisher = new Publisher(run);
  const sent = new Map(); // time of sending, by id, of what has no answer yet
  let last = false;
  const socket = new WebSocket(`ws://${server}/ws`, ['rayflux.v1.json']);

  // Without waiting for the answer to the one before: commands of a connection are taken in order.
  function send() {
    const data = publisher.next();
    last = data.last;
    sent.set(data.number, now());
    socket.send(JSON.stringify({ op: 'publish', id: data.number, topic: publisher.topic, data }));
    if (!last) {
      timer = setTimeout(send, publisher.wait());
    }
  }

  let timer;
  socket.onopen = () => {
    timer = setTimeout(send, publisher.wait());
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.op === 'welcome') {
      return;
    }
    if (event.op === 'published') {
      publisher.published(now() - sent.get(event.id));
    } else {
      publisher.failed(data);
    }
    sent.delete(event.id);
    if (last && sent.size === 0) {
      publisher.finished();
      socket.close();
    }
  };
  socket.onerror = ({ error }) => publisher.failed(error);
  socket.onclose = () => clearTimeout(timer);
}
