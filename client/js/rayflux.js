// RayFlux client for browsers and Node, without dependencies (rayflux.v1.json).
//
//   import { RayFlux } from './rayflux.js'
//   const client = await RayFlux.connect('ws://127.0.0.1:8083/ws')
//   const prices = await client.subscribe('prices', {
//     onMessage: ({ offset, data }) => show(data),
//     onGap: ({ reason, missed }) => reload(),
//   })
//   const { epoch, offset } = await client.publish('prices', { eur: 1.08 })
//
// A subscription is a position that moves, not a connection. When the
// connection breaks, the client makes another one and every subscription asks
// for what follows its last message: onMessage sees each offset once and in
// order, and onGap is called where the server could not continue.
//
// A publish is sent at most once. If the connection breaks before its answer,
// it is rejected with code `outcome_unknown`: it may or may not have happened.
//
// Offsets are exact up to 2^53. A browser cannot stop reading a socket, so
// onMessage should return soon.

const SUBPROTOCOL = 'rayflux.v1.json'
const HANDSHAKE_MS = 10_000 // from opening the socket to the welcome
const PING_INTERVAL_MS = 25_000 // for a welcome that does not say

// What a subscription that has started waits out instead of ending.
const PASSING = new Set(['no_owner', 'overloaded', 'rate_limited', 'draining', 'internal',
  'store_unavailable', 'too_many_topics', 'timeout'])

/** What a failed call is rejected with. `code` is the protocol's word, or `closed`. */
export class RayFluxError extends Error {
  constructor (code, message, retryAfterMs = 0) {
    super(`${code}: ${message}`)
    this.name = 'RayFluxError'
    this.code = code
    this.retryAfterMs = retryAfterMs
  }
}

/** One topic's messages. Made by RayFlux.subscribe. */
class Subscription {
  /** Where the consumer is: `{epoch, offset}` of the last message or gap, usable as `from`. */
  position = null
  /** Whether a start at a position was without a hole. */
  recovered = false
  live = false // the present connection has confirmed
  refusals = 0 // of the resume, in a row

  constructor (client, topic, options) {
    Object.assign(this, { client, topic, options })
  }

  /** Unsubscribes. No callback is called any more from the moment of the call. */
  close () { return this.client._unsubscribe(this) }
}

export class RayFlux {
  #socket = null
  #welcomed = false // commands may be sent
  #leaving = false // the server drains: answers are awaited, nothing new is sent
  #closed = false
  #first // settles connect()
  #lastID = 0
  #calls = new Map() // id to {op, resolve, reject, subscription}
  #waiting = new Set() // publishes for the next connection
  #subscriptions = new Map() // by topic
  #failures = 0 // connections that did not last, in a row
  #timers = new Map() // by purpose
  #patience = HANDSHAKE_MS

  /**
   * Connects and resolves to a client once the server has welcomed it; a
   * failure of this first attempt rejects. From then on it reconnects by itself.
   *
   * Options: `minBackoffMs` (100) and `maxBackoffMs` (10000) bound the random
   * wait before a reconnect; `inFlight` (1024) bounds the publishes without
   * answer; `onState(state, reason)` hears 'connected' and 'disconnected';
   * `WebSocket` replaces the global class.
   */
  static connect (url, options = {}) {
    const client = new RayFlux(url, options)
    return new Promise((resolve, reject) => {
      client.#first = { resolve: () => resolve(client), reject }
      client.#open()
    })
  }

  /** Use RayFlux.connect. */
  constructor (url, options) {
    this.url = url
    this.options = {
      minBackoffMs: 100, maxBackoffMs: 10_000, inFlight: 1024, onState () {}, WebSocket: globalThis.WebSocket, ...options,
    }
  }

  /**
   * Publishes and resolves to `{epoch, offset}`. A string is sent as text, a
   * Uint8Array as binary, anything else as JSON (`json: true` for a string as
   * JSON). `ack: 'stored'` waits for the snapshot store. Without a connection it
   * waits for the next; `signal` gives up waiting.
   */
  publish (topic, value, { ack, json = false, signal } = {}) {
    const command = { op: 'publish', topic, ...payload(value, json), ...(ack && { ack }) }
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new RayFluxError('closed', 'the client is closed')
      signal?.throwIfAborted()
      if (this.#calls.size + this.#waiting.size >= this.options.inFlight) {
        throw new RayFluxError('overloaded', `${this.options.inFlight} publishes wait for an answer, the limit`)
      }
      const call = { op: 'publish', command, resolve: ({ epoch, offset }) => resolve({ epoch, offset }), reject }
      signal?.addEventListener('abort', () => {
        if (this.#waiting.delete(call)) reject(signal.reason)
        else reject(new RayFluxError('outcome_unknown', 'the caller gave up waiting for the answer'))
      }, { once: true })
      if (this.#welcomed && !this.#leaving) this.#send(command, call)
      else this.#waiting.add(call)
    })
  }

  /**
   * Subscribes and resolves to a Subscription once the server has confirmed.
   *
   * Options: `from`: nothing (live), 'earliest', {last: N}, {since: RFC 3339}
   * or a position {epoch, offset}; `onMessage({topic, epoch, offset, data})`,
   * with `bytes` (Uint8Array) in place of `data` for a binary message;
   * `onGap({topic, epoch, offset, reason, missed})`: messages up to there will
   * not come; `onError(error)`: the server ended the subscription for good.
   * The first callbacks may come just before the promise's own.
   */
  subscribe (topic, options = {}) {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new RayFluxError('closed', 'the client is closed')
      if (this.#subscriptions.has(topic)) throw new RayFluxError('already_subscribed', `to ${topic}`)
      const subscription = new Subscription(this, topic, options)
      Object.assign(subscription, { resolve, reject })
      this.#subscriptions.set(topic, subscription)
      if (this.#welcomed && !this.#leaving) this.#resume(subscription)
    })
  }

  /** Closes the connection. What has no answer yet is rejected. */
  close () {
    if (this.#closed) return
    this.#closed = true
    for (const s of this.#subscriptions.values()) s.reject(new RayFluxError('closed', 'the client was closed'))
    this.#subscriptions.clear()
    for (const call of this.#waiting) call.reject(new RayFluxError('closed', 'the client was closed'))
    this.#waiting.clear()
    this.#drop('closed', 1000)
  }

  _unsubscribe (subscription) {
    const { topic } = subscription
    if (this.#subscriptions.get(topic) !== subscription) return Promise.resolve()
    this.#subscriptions.delete(topic)
    clearTimeout(this.#timers.get(subscription))
    this.#timers.delete(subscription)
    if (!this.#welcomed || this.#leaving) return Promise.resolve() // the next connection does not know of it
    return new Promise(resolve => {
      this.#send({ op: 'unsubscribe', topic }, { op: 'unsubscribe', resolve: () => resolve(), reject: () => resolve() })
    })
  }

  // --- the connection ---

  #open () {
    let socket
    try {
      socket = new this.options.WebSocket(this.url, SUBPROTOCOL)
    } catch (error) { // a bad URL throws at once, and would again
      this.#closed = true
      this.#first?.reject(error)
      return
    }
    this.#socket = socket
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#receive(JSON.parse(data))
    }
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#lost(`closed with ${code} ${reason}`)
    }
    socket.onerror = () => {} // a close follows
    this.#after('silence', HANDSHAKE_MS, () => this.#drop('no welcome'))
  }

  /** Ends the connection without waiting for the other side, which may be dead. */
  #drop (reason, code = 4000) {
    const socket = this.#socket
    this.#socket = null
    socket?.close(code)
    this.#lost(reason)
  }

  #lost (reason) {
    this.#socket = null
    const lasted = this.#welcomed && Date.now() - this.since >= this.options.maxBackoffMs
    const drained = this.#timers.has('leave') || this.#leaving
    this.#welcomed = this.#leaving = false
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
    for (const call of this.#calls.values()) {
      if (call.op !== 'subscribe') call.reject(new RayFluxError('outcome_unknown', `connection lost: ${reason}`))
    }
    this.#calls.clear()
    if (this.#first) {
      this.#closed = true
      this.#first.reject(new RayFluxError('closed', `cannot connect to ${this.url}: ${reason}`))
      this.#first = null
    } else if (this.options.onState('disconnected', reason), !this.#closed) {
      // Only a connection that lasted proves the server well. One that asked to
      // leave has spread its clients over time already.
      if (lasted) this.#failures = 0
      const wait = this.#backoff(this.#failures)
      this.#after('reconnect', drained && this.#failures === 0 ? 0 : wait, () => this.#open())
      this.#failures++
    }
  }

  /** Full jitter: all clients of a lost server come back spread evenly. */
  #backoff (failures) {
    const { minBackoffMs, maxBackoffMs } = this.options
    return Math.random() * Math.min(maxBackoffMs, minBackoffMs * 2 ** failures)
  }

  #after (purpose, ms, callback) {
    clearTimeout(this.#timers.get(purpose))
    this.#timers.set(purpose, setTimeout(() => {
      this.#timers.delete(purpose)
      callback()
    }, ms))
  }

  #send (command, call) {
    const id = ++this.#lastID
    this.#calls.set(id, call)
    this.#socket.send(JSON.stringify({ ...command, id }))
  }

  /** Any message is a sign of life. Without one a ping is sent, then the server is left. */
  #watch () {
    this.#after('silence', this.#patience, () => {
      this.#send({ op: 'ping' }, { op: 'ping', resolve () {}, reject () {} })
      this.#after('silence', this.#patience, () => this.#drop('the server has been silent for too long'))
    })
  }

  // --- what the server says ---

  #receive (event) {
    if (event.op === 'welcome') this.#greet(event)
    if (this.#welcomed) this.#watch()
    switch (event.op) {
      case 'message': return this.#message(event)
      case 'gap': return this.#gap(event)
      case 'drain': return this.#drain(event.reconnect_after_ms)
      case 'subscribed': case 'unsubscribed': case 'published': case 'pong': case 'error': return this.#answer(event)
    }
  }

  #greet ({ ping_interval_ms: interval }) {
    this.#welcomed = true
    this.since = Date.now()
    this.#patience = (interval || PING_INTERVAL_MS) * 5 / 4
    for (const subscription of this.#subscriptions.values()) {
      subscription.live = false
      this.#resume(subscription)
    }
    for (const call of this.#waiting) this.#send(call.command, call)
    this.#waiting.clear()
    this.#first?.resolve()
    this.#first = null
    this.options.onState('connected')
  }

  #resume (subscription) {
    const from = subscription.position ?? subscription.options.from
    this.#send({ op: 'subscribe', topic: subscription.topic, ...(from && { from }) },
      { op: 'subscribe', subscription, from })
  }

  #answer (event) {
    const call = this.#calls.get(event.id)
    if (!call) return
    this.#calls.delete(event.id)
    const failed = event.op === 'error' && new RayFluxError(event.code, event.message, event.retry_after_ms)
    if (call.op === 'subscribe') {
      if (this.#subscriptions.get(call.subscription.topic) === call.subscription) {
        failed ? this.#refused(call.subscription, failed) : this.#subscribed(call, event)
      }
    } else if (failed) call.reject(failed)
    else call.resolve(event)
    if (this.#leaving && this.#calls.size === 0) this.#drop('left after drain', 1000)
  }

  /** Recovered or partial: the sequence goes on. Neither: the gap is here and now. */
  #subscribed ({ subscription, from }, { epoch, offset, recovered, partial }) {
    const asked = from?.epoch !== undefined
    const starts = subscription.position === null
    const whole = !asked || recovered || partial
    subscription.position = asked ? { epoch: from.epoch, offset: from.offset } : { epoch, offset }
    if (starts) subscription.recovered = Boolean(recovered)
    subscription.live = true
    subscription.refusals = 0
    if (starts) subscription.resolve(subscription)
    if (!whole) {
      subscription.position = { epoch, offset }
      subscription.options.onGap?.({ topic: subscription.topic, epoch, offset, reason: 'reset' })
    }
  }

  #refused (subscription, error) {
    const { topic, position } = subscription
    if (position !== null && PASSING.has(error.code)) {
      const wait = Math.max(error.retryAfterMs, this.#backoff(subscription.refusals++))
      return this.#after(subscription, wait, () => this.#leaving || this.#resume(subscription))
    }
    this.#subscriptions.delete(topic)
    if (position === null) subscription.reject(error)
    else subscription.options.onError?.(error)
  }

  #message ({ topic, offset, data, base64 }) {
    const subscription = this.#subscriptions.get(topic)
    if (!subscription?.live || offset <= subscription.position.offset) return
    const { epoch, offset: last } = subscription.position
    if (offset !== last + 1) return this.#drop(`offset ${offset} follows ${last} without a gap`)
    subscription.position = { epoch, offset }
    const message = { topic, epoch, offset }
    if (base64 === undefined) message.data = data
    else message.bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0))
    subscription.options.onMessage?.(message)
  }

  #gap ({ topic, epoch, offset, missed, reason }) {
    const subscription = this.#subscriptions.get(topic)
    if (!subscription?.live) return
    if (epoch === subscription.position.epoch && offset <= subscription.position.offset) return
    subscription.position = { epoch, offset }
    subscription.options.onGap?.({ topic, epoch, offset, missed, reason })
  }

  /**
   * Leaves when the time is nearly over. It is this client's own, and the server spreads its clients evenly; the last second
   * of it, or quarter, is kept for answers to come.
   */
  #drain (ms) {
    if (this.#leaving || this.#timers.has('leave')) return
    const at = ms - Math.min(ms / 4, 1000)
    this.#after('leave', at, () => {
      this.#leaving = true
      if (this.#calls.size === 0) this.#drop('left after drain', 1000)
      else this.#after('left', ms - at, () => this.#drop('left after drain', 1000))
    })
  }
}

function payload (value, json) {
  if (value instanceof Uint8Array) {
    let binary = ''
    for (const byte of value) binary += String.fromCharCode(byte)
    return { base64: btoa(binary) }
  }
  return typeof value === 'string' && !json ? { text: value } : { data: value }
}
