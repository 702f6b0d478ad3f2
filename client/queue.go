package client

// queue is a ring of deliveries. It grows as it is needed, up to limit, since
// most subscriptions never hold more than a few.
type queue struct {
	ring  []Delivery
	first int
	n     int
	limit int // at least 1
}

// push adds d, or reports false: the queue is full.
func (q *queue) push(d Delivery) bool {
	if q.n == len(q.ring) {
		if q.n >= q.limit {
			return false
		}
		q.grow()
	}
	q.ring[(q.first+q.n)%len(q.ring)] = d
	q.n++
	return true
}

// pop takes the oldest delivery of a queue that is not empty.
func (q *queue) pop() Delivery {
	d := q.ring[q.first]
	q.ring[q.first] = Delivery{} // its payload is no longer ours to keep alive
	q.first = (q.first + 1) % len(q.ring)
	q.n--
	return d
}

func (q *queue) grow() {
	larger := make([]Delivery, min(max(4, 2*len(q.ring)), q.limit))
	n := copy(larger, q.ring[q.first:])
	copy(larger[n:], q.ring[:q.first])
	q.ring, q.first = larger, 0
}
