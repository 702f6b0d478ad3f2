package engine

import (
	"slices"
	"time"

	"rayflux/persist"
)

const dormantCost = 192 // of a topic that was forgotten, and whose epoch is remembered

// dormant is where a topic stood that was forgotten for being idle, or left by a process before this one: if it is used again its
// epoch goes on.
type dormant struct {
	epoch string
	began int64
	head  uint64
}

// rest remembers a topic that is forgotten.
func (k *keeper) rest(t *topic) {
	k.take(t)
	if t.head > 0 {
		k.remember(t.name, dormant{t.epoch, t.began, t.head})
	}
}

// remember keeps where a topic stood, in the place of whoever sleeps longest, if there are too many: that one begins a new epoch,
// should it be used again.
func (k *keeper) remember(name string, d dormant) {
	for len(k.dormant) >= k.dormantMax {
		longest := k.sleepers[0]
		k.sleepers = k.sleepers[1:]
		k.recollect(longest)
	}
	if len(k.sleepers) > 2*k.dormantMax {
		k.tidySleepers()
	}
	k.dormant[name] = d
	k.sleepers = append(k.sleepers, name)
	k.loop.topicBytes += dormantCost
}

// tidySleepers drops the names of topics that are awake, or have fallen asleep again since.
func (k *keeper) tidySleepers() {
	last := make(map[string]int, len(k.dormant))
	for i, name := range k.sleepers {
		if _, sleeps := k.dormant[name]; sleeps {
			last[name] = i
		}
	}
	kept := make([]string, 0, len(last))
	for i, name := range k.sleepers {
		if at, sleeps := last[name]; sleeps && at == i {
			kept = append(kept, name)
		}
	}
	k.sleepers = kept
}

// recollect forgets a dormant topic, and says where it stood.
func (k *keeper) recollect(name string) (d dormant, ok bool) {
	if d, ok = k.dormant[name]; ok {
		delete(k.dormant, name)
		k.loop.topicBytes -= dormantCost
	}
	return d, ok
}

// wake is the topic of a name with its epoch as it was, or with a new one.
func (k *keeper) wake(name []byte) *topic {
	l := k.loop
	d, ok := k.recollect(string(name))
	if !ok {
		return l.blankTopic(name, l.newEpoch(), 0)
	}
	t := l.blankTopic(name, d.epoch, d.head)
	t.began, t.offered, t.stored = d.began, d.head, d.head // it was offered long ago
	return t
}

// rouse makes a topic that was forgotten one of the loop's again, as another node wants it; nil: it is not known, or there is no room.
func (k *keeper) rouse(name string) *topic {
	l := k.loop
	if _, ok := k.dormant[name]; !ok {
		return nil
	}
	t := k.wake([]byte(name))
	if l.enter(t) != nil {
		k.rest(t)
		return nil
	}
	l.wheel.start(&t.timer, l.now+t.ageMax*int64(time.Millisecond))
	return t
}

// rouseStrays rouses the topics that belong to a node which can be handed them.
func (k *keeper) rouseStrays() {
	s := k.loop.estate
	var strays []string
	for name := range k.dormant {
		if slot := s.rightful(hashOf(name)); slot >= 0 && s.neighbours[slot] != nil && s.neighbours[slot].ready() {
			strays = append(strays, name)
		}
	}
	slices.Sort(strays) // a run of the simulation is to repeat
	for _, name := range strays {
		k.rouse(name)
	}
}

// inherit takes where topics stood that this node goes on with. What has begun anew meanwhile stays as it is.
func (k *keeper) inherit(positions []persist.Sealed) {
	l := k.loop
	k.inherited = true
	for i := range positions {
		p := &positions[i]
		if l.homeOf(hashOf(p.Topic)) != l || !l.cfg.keeps(p.Topic) {
			continue
		}
		_, lives := l.topics[p.Topic]
		if _, rests := k.dormant[p.Topic]; !lives && !rests {
			k.remember(p.Topic, dormant{p.Epoch, p.Began, p.Last})
		}
	}
	if l.estate != nil {
		l.estate.changed() // commands wait for this
	}
}
