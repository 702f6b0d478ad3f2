package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"rayflux/engine"
)

// Source finds out who has which slot. It is used by one goroutine.
type Source interface {
	// Next returns all slots: at the first call as soon as they are known, then when they may have changed, and before
	// that it waits. An error is a failed attempt: what was known stands, and the next call waits until it is time to try
	// again. At the end of ctx it returns ctx's error. The slots are the caller's; at least one has an address.
	Next(ctx context.Context) ([]engine.Slot, error)
	// String is the text that the same source is made of.
	String() string
}

// Schemes are what the text of a source may begin with, before its first colon. What follows k8s: is for package k8s to read.
var Schemes = []string{"static", "dns", "k8s"}

// SchemeError is an unknown scheme, for callers that know which one was meant.
type SchemeError struct {
	Scheme string
	text   string
}

func (e *SchemeError) Error() string {
	return fmt.Sprintf("%.80q begins with %.80q, want one of static:, dns: and k8s:", e.text, e.Scheme)
}

// ParseNodes reads where to find the nodes of a cluster:
//
//	static:h1:8080,h2:8080     these, the first being slot 0
//	dns:name:8080              each address of a name, sorted
//	dns:_service._proto.name   each target of the name's SRV records
//
// It looks nothing up. An unknown scheme is a *SchemeError.
func ParseNodes(text string) (Source, error) {
	scheme, rest, found := strings.Cut(text, ":")
	switch {
	case text == "":
		return nil, errors.New("no nodes given, want static:HOST:PORT,…, dns:NAME:PORT, dns:_SERVICE._PROTO.NAME or k8s:NAMESPACE/SERVICE")
	case scheme == "static" && found:
		return parseStatic(rest)
	case scheme == "dns" && found:
		return parseDNS(rest)
	}
	return nil, &SchemeError{scheme, text}
}

// splitAddress reads host:port, and gives the host in the one form that equal hosts share.
func splitAddress(address string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		if wrong := (*net.AddrError)(nil); errors.As(err, &wrong) && wrong.Err == "missing port in address" {
			return "", 0, fmt.Errorf("%.80q has no port, want host:port", address)
		}
		return "", 0, fmt.Errorf("%.80q is not host:port", address)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port of %.80q is %.20q, want 1 to 65535", address, digits)
	}
	if host, err = checkHost(host); err != nil {
		return "", 0, err
	}
	return host, uint16(n), nil
}

func joinAddress(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// checkHost tells what cannot be the name or the IP address of a host, and writes those that can in one way.
func checkHost(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return "", fmt.Errorf("%.80q has a zone, which is another one on each machine", host)
		}
		return ip.Unmap().String(), nil
	}
	name := strings.TrimSuffix(host, ".")
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("host name is %d bytes, want 1 to 253", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("a part of host name %.80q is %d bytes, want 1 to 63", host, len(label))
		}
		for _, c := range label {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return "", fmt.Errorf("host name %.80q has a %q", host, c)
			}
		}
	}
	return strings.ToLower(host), nil
}
