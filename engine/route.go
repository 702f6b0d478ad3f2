package engine

import (
	"bytes"
	"fmt"

	"rayflux/protocol"
)

// route is an endpoint of the public port.
type route uint8

const (
	routeNone route = iota
	routeWS
	routeSubscribe
	routeClassicPublish
	routeBatch
	routePublish
	routeHistory
	routeMessages // /v1/topics/{topic}/messages with a method it does not have
	routeStream
	routeHealth
)

// routes is the one table of endpoints; the two that have a topic in their path are found by routeOf.
var routes = [...]struct {
	path    string
	methods string
	body    bool
}{
	routeNone:           {},
	routeWS:             {"/ws", "GET", false},
	routeSubscribe:      {"/subscribe", "GET", false},
	routeClassicPublish: {"/publish", "POST", true},
	routeBatch:          {"/v1/publish", "POST", true},
	routePublish:        {"", "POST", true},
	routeHistory:        {"", "GET", false},
	routeMessages:       {"", "GET, POST", false},
	routeStream:         {"/v1/sse", "GET", false},
	routeHealth:         {"/healthz", "GET", false},
}

var (
	topicsPrefix   = []byte("/v1/topics/")
	messagesSuffix = []byte("/messages")
)

// routeOf finds the endpoint a request is for.
func routeOf(req *protocol.Request) route {
	if topic := rawTopic(req.Path); topic != nil {
		switch string(req.Method) {
		case "POST":
			return routePublish
		case "GET":
			return routeHistory
		}
		return routeMessages
	}
	for i := range routes {
		if path := routes[i].path; path != "" && string(req.Path) == path {
			return route(i)
		}
	}
	return routeNone
}

// rawTopic is the {topic} part of a messages path as it stands there, nil if it is another path.
func rawTopic(path []byte) []byte {
	rest, ok := bytes.CutPrefix(path, topicsPrefix)
	if !ok {
		return nil
	}
	topic, ok := bytes.CutSuffix(rest, messagesSuffix)
	if !ok || bytes.IndexByte(topic, '/') >= 0 {
		return nil
	}
	return topic
}

// check refuses unknown paths and wrong methods.
func (r route) check(req *protocol.Request) error {
	switch {
	case r == routeNone:
		return &protocol.HTTPError{Status: 404, Code: protocol.CodeNotFound, Message: fmt.Sprintf("no such path: %.200q", req.Path)}
	case r == routeMessages || string(req.Method) != routes[r].methods && r != routePublish && r != routeHistory:
		return &protocol.HTTPError{Status: 405, Code: protocol.CodeMethodNotAllowed, Allow: routes[r].methods,
			Message: fmt.Sprintf("%.40q is not a method of %.200q, which has %s", req.Method, req.Path, routes[r].methods)}
	}
	return nil
}

func (r route) hasBody() bool { return routes[r].body }

// bodyLimit is the most a request may carry behind its head.
func (l *loop) bodyLimit(r route) int {
	switch r {
	case routeClassicPublish:
		return 2*l.cfg.MaxMessage + 8<<10 // escapes make a message longer than its payload
	case routeBatch:
		return l.cfg.MaxBatch
	case routePublish:
		return l.cfg.MaxMessage
	}
	return 8 << 10 // read and ignored
}
