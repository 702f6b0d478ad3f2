import { test } from 'node:test'
import assert from 'node:assert/strict'
import { RayFlux } from './rayflux.js'

// A server that does what the test says. Each socket a client opens arrives in
// accept(); what the client sends arrives in expect().
class Arrivals {
  #items = []
  #waiting = []
  push (item) {
    const take = this.#waiting.shift()
    take ? take(item) : this.#items.push(item)
  }

  next () {
    return this.#items.length > 0 ? Promise.resolve(this.#items.shift()) : new Promise(resolve => this.#waiting.push(resolve))
  }

  get empty () { return this.#items.length === 0 }
}

class Script {
  #sockets = new Arrivals()
  constructor () {
    const script = this
    this.WebSocket = class {
      sent = new Arrivals()
      closed = new Promise(resolve => { this.close = resolve })
      constructor (url, protocol) {
        Object.assign(this, { url, protocol })
        script.#sockets.push(this)
      }

      send (text) { this.sent.push(JSON.parse(text)) }
      say (...events) { for (const event of events) this.onmessage({ data: JSON.stringify(event) }) }
      cut () { this.onclose({ code: 1006, reason: '' }) }
      async expect (op) {
        const command = await this.sent.next()
        assert.equal(command.op, op)
        return command
      }
    }
  }

  async accept (welcome = {}) {
    const socket = await this.#sockets.next()
    socket.say({ op: 'welcome', session: 's', version: 'v', ping_interval_ms: 25000, max_message_bytes: 65536, ...welcome })
    return socket
  }

  async connect (t, options = {}, welcome = {}) {
    const connecting = RayFlux.connect('ws://test/ws', { minBackoffMs: 1, WebSocket: this.WebSocket, ...options })
    const socket = await this.accept(welcome)
    const client = await connecting
    t.after(() => client.close())
    return { client, socket }
  }

  next () { return this.#sockets.next() }
}

const subscribed = ({ id, topic }, epoch, offset, recovered = false) => ({ op: 'subscribed', id, topic, epoch, offset, recovered })
const message = (topic, offset, data = 'x') => ({ op: 'message', topic, offset, data })

// Subscribes, plays the server's part, and logs what the callbacks see.
async function subscribe (client, socket, topic, { from, epoch = 'E1', offset = 40, recovered = false } = {}) {
  const seen = []
  const subscribing = client.subscribe(topic, {
    from,
    onMessage: ({ epoch, offset }) => seen.push(`${epoch}:${offset}`),
    onGap: ({ epoch, offset, reason, missed }) => seen.push(`gap ${reason} ${missed ?? '?'} ${epoch}:${offset}`),
    onError: ({ code }) => seen.push(`error ${code}`),
  })
  socket.say(subscribed(await socket.expect('subscribe'), epoch, offset, recovered))
  return { subscription: await subscribing, seen }
}

test('a subscription resumes after a cut and sees one unbroken sequence', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  assert.equal(socket.protocol, 'rayflux.v1.json')
  const { subscription, seen } = await subscribe(client, socket, 't')
  socket.say(message('t', 41), message('t', 41), message('t', 42))
  socket.cut()

  const again = await script.accept()
  const command = await again.expect('subscribe')
  assert.deepEqual(command.from, { epoch: 'E1', offset: 42 })
  again.say(message('t', 90), subscribed(command, 'E1', 42, true), message('t', 43))
  assert.deepEqual(seen, ['E1:41', 'E1:42', 'E1:43'])
  assert.deepEqual(subscription.position, { epoch: 'E1', offset: 43 })
})

test('a resume that is not recovered is one gap', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const { seen } = await subscribe(client, socket, 't')
  socket.cut()
  const again = await script.accept()
  again.say(subscribed(await again.expect('subscribe'), 'E2', 7), message('t', 8))
  assert.deepEqual(seen, ['gap reset ? E2:7', 'E2:8'])
})

test('a partial recovery leaves the gap to the server', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const { seen } = await subscribe(client, socket, 't')
  socket.cut()
  const again = await script.accept()
  again.say({ ...subscribed(await again.expect('subscribe'), 'E1', 40), partial: true }, message('t', 41),
    { op: 'gap', topic: 't', epoch: 'E2', offset: 0, missed: 3, reason: 'reset' }, message('t', 1))
  assert.deepEqual(seen, ['E1:41', 'gap reset 3 E2:0', 'E2:1'])
})

test('a start after an unknown position begins with a gap', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const { subscription, seen } = await subscribe(client, socket, 't', { from: { epoch: 'E0', offset: 9 }, offset: 3 })
  assert.equal(subscription.recovered, false)
  socket.say(message('t', 4))
  assert.deepEqual(seen, ['gap reset ? E1:3', 'E1:4'])
})

test('a silent hole is asked for again', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const { seen } = await subscribe(client, socket, 't')
  socket.say(message('t', 41), message('t', 43), message('t', 44))
  await socket.closed
  const again = await script.accept()
  const command = await again.expect('subscribe')
  assert.deepEqual(command.from, { epoch: 'E1', offset: 41 })
  again.say(subscribed(command, 'E1', 41, true), message('t', 42))
  assert.deepEqual(seen, ['E1:41', 'E1:42'])
})

test('a resume refused for now is tried again, one refused for good ends', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const { seen } = await subscribe(client, socket, 't')
  socket.cut()
  const again = await script.accept()
  const first = await again.expect('subscribe')
  again.say({ op: 'error', id: first.id, code: 'no_owner', message: 'no' })
  const second = await again.expect('subscribe')
  assert.deepEqual(second.from, { epoch: 'E1', offset: 40 })
  again.say({ op: 'error', id: second.id, code: 'forbidden', message: 'no' })
  assert.deepEqual(seen, ['error forbidden'])
})

test('a refused subscribe rejects and frees the topic', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const subscribing = client.subscribe('t')
  socket.say({ op: 'error', id: (await socket.expect('subscribe')).id, code: 'no_owner', message: 'no' })
  await assert.rejects(subscribing, { code: 'no_owner' })
  await subscribe(client, socket, 't')
  await assert.rejects(client.subscribe('t'), { code: 'already_subscribed' })
})

test('close unsubscribes, and late messages are not seen', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const { subscription, seen } = await subscribe(client, socket, 't')
  const closing = subscription.close()
  const command = await socket.expect('unsubscribe')
  const again = subscribe(client, socket, 't', { offset: 43 })
  socket.say(message('t', 41), { op: 'unsubscribed', id: command.id, topic: 't' })
  await closing
  const { seen: seenAgain } = await again
  socket.say(message('t', 44))
  assert.deepEqual([seen, seenAgain], [[], ['E1:44']])
})

test('publish resolves to its position, whatever the order of the answers', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const calls = [
    client.publish('t', { a: 1 }, { ack: 'stored' }), client.publish('t', 'text'),
    client.publish('t', new Uint8Array([0, 255])), client.publish('t', 'json', { json: true }),
  ]
  const commands = []
  for (const _ of calls) commands.push(await socket.expect('publish'))
  assert.deepEqual(commands.map(({ id, op, topic, ...rest }) => rest),
    [{ data: { a: 1 }, ack: 'stored' }, { text: 'text' }, { base64: 'AP8=' }, { data: 'json' }])
  for (const { id } of commands.reverse()) socket.say({ op: 'published', id, topic: 't', epoch: 'E1', offset: id * 10 })
  assert.deepEqual(await calls[0], { epoch: 'E1', offset: commands.at(-1).id * 10 })
})

test('a refused publish rejects with the code and the advice', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const publishing = client.publish('t', 1)
  const { id } = await socket.expect('publish')
  socket.say({ op: 'error', id, code: 'rate_limited', message: 'slow down', retry_after_ms: 1500 })
  await assert.rejects(publishing, { code: 'rate_limited', retryAfterMs: 1500 })
})

test('a publish in flight when the connection breaks is not sent again', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const lost = client.publish('t', 'lost')
  await socket.expect('publish')
  socket.cut()
  await assert.rejects(lost, { code: 'outcome_unknown' })
  const later = client.publish('t', 'later') // waits for the next connection
  const again = await script.accept()
  const command = await again.expect('publish')
  assert.equal(command.text, 'later')
  again.say({ op: 'published', id: command.id, topic: 't', epoch: 'E1', offset: 1 })
  await later
})

test('a publish that waits for a connection can be given up, and their number is bounded', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t, { inFlight: 1 })
  socket.cut()
  const giveUp = new AbortController()
  const waiting = client.publish('t', 1, { signal: giveUp.signal })
  await assert.rejects(client.publish('t', 2), { code: 'overloaded' })
  giveUp.abort()
  await assert.rejects(waiting, { name: 'AbortError' })
  const again = await script.accept()
  assert.ok(again.sent.empty)
})

test('drain waits for answers, then resumes elsewhere', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const { seen } = await subscribe(client, socket, 't')
  const before = client.publish('t', 'before')
  const { id } = await socket.expect('publish')
  socket.say({ op: 'drain', reconnect_after_ms: 2000 })
  await new Promise(resolve => setTimeout(resolve, 1500)) // the timer of the drain was set before, for as long
  const after = client.publish('t', 'after')
  assert.ok(socket.sent.empty)
  socket.say({ op: 'published', id, topic: 't', epoch: 'E1', offset: 41 })
  assert.equal((await before).offset, 41)
  assert.equal(await socket.closed, 1000)

  const again = await script.accept()
  again.say(subscribed(await again.expect('subscribe'), 'E1', 40, true), message('t', 41))
  again.say({ op: 'published', id: (await again.expect('publish')).id, topic: 't', epoch: 'E1', offset: 42 })
  await after
  assert.deepEqual(seen, ['E1:41'])
})

test('a silent server is pinged and then left', async t => {
  const script = new Script()
  const { socket } = await script.connect(t, {}, { ping_interval_ms: 8 })
  const { id } = await socket.expect('ping')
  socket.say({ op: 'pong', id })
  await socket.expect('ping')
  await socket.closed
  await script.next()
})

test('the first failure rejects', async () => {
  const script = new Script()
  const connecting = RayFlux.connect('ws://test/ws', { WebSocket: script.WebSocket })
  const socket = await script.next()
  socket.cut()
  await assert.rejects(connecting, /cannot connect/)
})

test('close ends everything', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const publishing = client.publish('t', 1)
  const subscribing = client.subscribe('t')
  client.close()
  await assert.rejects(publishing, { code: 'outcome_unknown' })
  await assert.rejects(subscribing, { code: 'closed' })
  await assert.rejects(client.publish('t', 1), { code: 'closed' })
  assert.equal(await socket.closed, 1000)
})

test('binary messages arrive as bytes', async t => {
  const script = new Script()
  const { client, socket } = await script.connect(t)
  const arrived = new Promise(resolve => client.subscribe('t', { onMessage: resolve }).catch(() => {}))
  socket.say(subscribed(await socket.expect('subscribe'), 'E1', 0), { op: 'message', topic: 't', offset: 1, base64: 'AP8=' })
  assert.deepEqual((await arrived).bytes, new Uint8Array([0, 255]))
})
