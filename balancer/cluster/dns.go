package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"rayflux/engine"
)

// How long a DNS source waits, each time between 80 and 120 % of it, so that processes that were started together do
// not ask together for ever.
const (
	lookupInterval = 5 * time.Second // what the records of a headless service may be kept for by default
	retryMin       = 500 * time.Millisecond
	retryMax       = 30 * time.Second       // doubling from retryMin, while lookups fail
	lookupTimeout  = 10 * time.Second       // then a lookup has failed
	doubtedWait    = 500 * time.Millisecond // what is in doubt is looked up no sooner after the last time
)

// resolver is the part of *net.Resolver that a DNS source asks.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// dnsSource is the nodes behind one name, typically that of a headless service.
type dnsSource struct {
	name     string
	port     uint16 // 0: SRV records, which say the ports
	resolver resolver
	interval time.Duration
	doubts   chan struct{} // holds one; safe from any goroutine

	wait   time.Duration // before the next lookup, less jitter
	failed int           // lookups since one went well
}

func parseDNS(text string) (Source, error) {
	s := &dnsSource{resolver: net.DefaultResolver, interval: lookupInterval, doubts: make(chan struct{}, 1)}
	if strings.HasPrefix(text, "_") {
		labels := strings.SplitN(text, ".", 3)
		if len(labels) < 3 || labels[2] == "" || !strings.HasPrefix(labels[1], "_") {
			return nil, fmt.Errorf("%.80q is no name of SRV records, want _SERVICE._PROTO.NAME as in _ws._tcp.rayflux", text)
		}
		if strings.Contains(text, ":") {
			return nil, fmt.Errorf("%.80q has a port, which SRV records say themselves", text)
		}
		name, err := checkHost(text)
		if err != nil {
			return nil, err
		}
		s.name = name
		return s, nil
	}
	host, port, err := splitAddress(text)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil, fmt.Errorf("%s is an address and no name to look up, want static:%s", host, joinAddress(host, port))
	}
	s.name, s.port = host, port
	return s, nil
}

func (s *dnsSource) String() string {
	if s.port == 0 {
		return "dns:" + s.name
	}
	return "dns:" + joinAddress(s.name, s.port)
}

func (s *dnsSource) Next(ctx context.Context) ([]engine.Slot, error) {
	if err := s.rest(ctx); err != nil {
		return nil, err
	}
	select {
	case <-s.doubts: // the look-up answers it
	default:
	}
	slots, err := s.lookup(ctx)
	if err != nil {
		s.wait = min(retryMin<<min(s.failed, 16), retryMax)
		s.failed++
		return nil, err
	}
	s.wait, s.failed = s.interval, 0
	return slots, nil
}

// Doubt has the names looked up soon. Safe from any goroutine.
func (s *dnsSource) Doubt() {
	select {
	case s.doubts <- struct{}{}:
	default:
	}
}

// rest waits until it is time for the next lookup, or until there is a doubt, if the last one went well.
func (s *dnsSource) rest(ctx context.Context) error {
	if s.failed > 0 {
		return pause(ctx, s.wait)
	}
	soon := min(doubtedWait, s.wait)
	if err := pause(ctx, soon); err != nil {
		return err
	}
	timer := time.NewTimer(jittered(s.wait - soon))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.doubts:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// jittered is about d.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// pause waits for about d, or until the end of ctx, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(jittered(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *dnsSource) lookup(ctx context.Context) ([]engine.Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if s.port == 0 {
		// An error beside records means that some were unusable, and a row with holes moves topics.
		_, records, err := s.resolver.LookupSRV(ctx, "", "", s.name)
		if err != nil {
			return nil, err
		}
		return slotsOfTargets(s.name, records)
	}
	addresses, err := s.lookupAddresses(ctx)
	if err != nil {
		return nil, err
	}
	return slotsOfAddresses(s.name, addresses, s.port)
}

// lookupAddresses asks for IPv6 addresses only if there are no IPv4 ones: a node that has both is one node. Asking for
// both at once would take a lost answer about one for a node's move to the other.
func (s *dnsSource) lookupAddresses(ctx context.Context) ([]netip.Addr, error) {
	addresses, err := s.resolver.LookupNetIP(ctx, "ip4", s.name)
	if missing := (*net.DNSError)(nil); err == nil && len(addresses) == 0 || errors.As(err, &missing) && missing.IsNotFound {
		return s.resolver.LookupNetIP(ctx, "ip6", s.name)
	}
	return addresses, err
}

// slotsOfAddresses gives slots by order of address: an address says nothing about a node's place.
func slotsOfAddresses(name string, found []netip.Addr, port uint16) ([]engine.Slot, error) {
	sorted := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		sorted = append(sorted, a.Unmap())
	}
	slices.SortFunc(sorted, netip.Addr.Compare)
	sorted = slices.Compact(sorted)
	if err := checkCount(name, len(sorted)); err != nil {
		return nil, err
	}
	var addresses []string
	for _, a := range sorted {
		addresses = append(addresses, joinAddress(a.String(), port))
	}
	return occupied(addresses), nil
}

// slotsOfTargets gives each target the slot of its ordinal, or slots by order of name if no target has one.
func slotsOfTargets(name string, records []*net.SRV) ([]engine.Slot, error) {
	var plain []string     // addresses without an ordinal
	var addresses []string // by ordinal
	for _, r := range records {
		target := strings.TrimSuffix(r.Target, ".")
		host, err := checkHost(target)
		if err != nil {
			return nil, fmt.Errorf("lookup %s: %w", name, err)
		}
		address := joinAddress(host, r.Port)
		slot, ok := Ordinal(host)
		if !ok {
			plain = append(plain, address)
			continue
		}
		if err := checkCount(name, slot+1); err != nil {
			return nil, err
		}
		for len(addresses) <= slot {
			addresses = append(addresses, "")
		}
		if other := addresses[slot]; other != "" && other != address {
			return nil, fmt.Errorf("lookup %s: slot %d is both %s and %s", name, slot, min(other, address), max(other, address))
		}
		addresses[slot] = address
	}
	if len(addresses) > 0 && len(plain) > 0 {
		return nil, fmt.Errorf("lookup %s: some targets end in an ordinal, and %s does not", name, slices.Min(plain))
	}
	if len(addresses) == 0 {
		slices.Sort(plain)
		addresses = slices.Compact(plain)
	}
	if err := checkCount(name, len(addresses)); err != nil {
		return nil, err
	}
	return occupied(addresses), nil
}

func checkCount(name string, slots int) error {
	switch {
	case slots == 0:
		return fmt.Errorf("lookup %s: no records", name)
	case slots > SlotsMax:
		return fmt.Errorf("lookup %s: %d slots, limit %d", name, slots, SlotsMax)
	}
	return nil
}

// Ordinal is the number at the end of a host's first label, as StatefulSets give it: 2 of rayflux-2.rayflux.default.
// A label that is an IP address with dashes, which headless services give to pods without a name, has none.
func Ordinal(host string) (int, bool) {
	label, _, _ := strings.Cut(host, ".")
	for _, dot := range []string{".", ":"} {
		if _, err := netip.ParseAddr(strings.ReplaceAll(label, "-", dot)); err == nil {
			return 0, false
		}
	}
	at := strings.LastIndexByte(label, '-')
	if at < 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(label[at+1:], 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != label[at+1:] {
		return 0, false
	}
	return int(n), true
}
