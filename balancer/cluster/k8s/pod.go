package k8s

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"rayflux/balancer/cluster"
	"rayflux/engine"
)

// pod is one entry of a slice.
type pod struct {
	ordinal int
	engine.Slot
}

// podsOf finds those with addresses of one family, in no order, each as often as it is listed.
func podsOf(endpoints []*discovery.EndpointSlice, family discovery.AddressType) (pods []pod, err error) {
	for _, e := range endpoints {
		if e.AddressType != family || len(e.Endpoints) == 0 {
			continue
		}
		port, err := portOf(e.Ports)
		if err != nil {
			return nil, err
		}
		for i := range e.Endpoints {
			p, err := podOf(&e.Endpoints[i], port)
			if err != nil {
				return nil, err
			}
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// portOf is the port called ws, or the only one.
func portOf(ports []discovery.EndpointPort) (uint16, error) {
	for i := range ports {
		p := &ports[i]
		named := p.Name != nil && *p.Name == portName
		if p.Port == nil || *p.Port < 1 || *p.Port > 65535 || p.Protocol != nil && *p.Protocol != core.ProtocolTCP {
			continue
		}
		if named || len(ports) == 1 {
			return uint16(*p.Port), nil
		}
	}
	return 0, fmt.Errorf("none of its %d ports is the public one: want a TCP port called %s, or a single one", len(ports), portName)
}

func podOf(e *discovery.Endpoint, port uint16) (pod, error) {
	name := ""
	switch {
	case e.Hostname != nil && *e.Hostname != "":
		name = *e.Hostname
	case e.TargetRef != nil && e.TargetRef.Kind == "Pod":
		name = e.TargetRef.Name
	}
	ordinal, ok := cluster.Ordinal(name)
	if !ok {
		return pod{}, fmt.Errorf("pod %.80q has no ordinal: nodes are a StatefulSet", name)
	}
	if ordinal >= cluster.SlotsMax {
		return pod{}, fmt.Errorf("pod %.80q: %d slots, limit %d", name, ordinal+1, cluster.SlotsMax)
	}
	if len(e.Addresses) == 0 {
		return pod{}, errors.New("pod " + name + " has no address")
	}
	ip, err := netip.ParseAddr(e.Addresses[0]) // the others, should there be any, mean the same
	if err != nil || ip.Zone() != "" {
		return pod{}, fmt.Errorf("pod %.80q: %.80q is no IP address", name, e.Addresses[0])
	}
	return pod{ordinal, engine.Slot{
		Address:  net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(int(port))),
		Ready:    true,
		Draining: leaves(&e.Conditions),
	}}, nil
}

// leaves reports whether a pod is going away and has begun to: it terminates, and its probe says that it serves no more.
//
// A pod that is not ready and stays is no less its slot's: whether a node is up, links find out sooner than probes, and alike on both ends.
// Who owns a topic is agreed on by fingerprints, which have addresses only, so what changes without an address must not move
// topics: when nodes that were not ready yet, or were about to be told to end, were passed over, processes that saw it at different
// moments began topics twice.
//
// With publishNotReadyAddresses all pods are called ready, so it is "serving" that counts; where it is not there it is to be
// taken for "ready", and that one, if not there, for true.
func leaves(c *discovery.EndpointConditions) bool {
	serving := c.Ready == nil || *c.Ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	return c.Terminating != nil && *c.Terminating && !serving
}
