package engine

// Directory says which node owns a topic. A server that has one is a balancer, whose topics' messages come from their owners
// over links, or one of the nodes (Config.Slot), which hands over what belongs to others. Implementations are safe from any goroutine and never block.
type Directory interface {
	// View is what is known of the nodes now. It is never nil and never changes.
	View() *View
	// Choice is the slot that a topic of this hash belongs to when the attempt slots before it (0: none) cannot have it.
	// With attempt from 0 to slots-1 each slot comes once.
	Choice(hash uint64, attempt, slots int) int
	// Doubt is told when another process sees other nodes: View may be behind.
	Doubt()
	// Watch has a token after each change of View. One receiver.
	Watch() <-chan struct{}
}

// View is who is known to be where, at one time. Views of different processes can be equal, but neither is the newer one.
type View struct {
	Version     uint64 // rises with each change in this process
	Fingerprint uint64 // the same wherever slots and addresses are the same
	Slots       []Slot
}

// Slot is a node's place in the cluster: topics belong to slots, and a slot whose node is away stays one.
type Slot struct {
	Address  string // host:port of the node's public port; "" while nobody has the slot
	Ready    bool
	Draining bool // it takes no new topics
}
