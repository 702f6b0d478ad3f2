package k8s

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
)

// apiServer is a miniature of Kubernetes': list and watch of two kinds over real HTTP, to whoever asks as a Role for exactly
// that would allow.
type apiServer struct {
	t    *testing.T
	http *httptest.Server

	lock    sync.Mutex
	version int
	kinds   map[string]*kept // by resource
	down    bool             // connections are cut as soon as somebody asks
	lists   int
}

// kept is what it has of one resource.
type kept struct {
	apiVersion, kind string
	selector         string // what the query has to have, as key=value
	objects          map[string]runtime.Object
	events           []change
	oldest           int           // version before which events are forgotten
	changed          chan struct{} // closed at each change, and replaced
	cut              chan struct{} // the same: watches end
}

type change struct {
	version int
	Type    string `json:"type"`
	Object  any    `json:"object"`
}

func serveAPI(t *testing.T) *apiServer {
	a := &apiServer{t: t, kinds: map[string]*kept{
		"/apis/discovery.k8s.io/v1/namespaces/test/endpointslices": {apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice",
			selector: "labelSelector=kubernetes.io/service-name=nodes"},
		"/apis/apps/v1/namespaces/test/statefulsets": {apiVersion: "apps/v1", kind: "StatefulSet", selector: "fieldSelector=metadata.name=nodes"},
	}}
	for _, k := range a.kinds {
		k.objects, k.changed, k.cut = map[string]runtime.Object{}, make(chan struct{}), make(chan struct{})
	}
	a.http = httptest.NewServer(a)
	t.Cleanup(func() {
		a.http.CloseClientConnections()
		a.http.Close()
	})
	return a
}

// source is one that asks this server, and does not wait long when it does not answer.
func (a *apiServer) source() *source {
	s := newSource("test", "nodes", func() (*rest.Config, error) { return &rest.Config{Host: a.http.URL}, nil })
	s.backoff = wait.Backoff{Duration: time.Millisecond, Factor: 1, Steps: 1}
	s.again = s.backoff
	return s
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.lock.Lock()
	k, down, now := a.kinds[r.URL.Path], a.down, a.version
	a.lock.Unlock()
	key, value := "", ""
	if k != nil {
		key, value, _ = strings.Cut(k.selector, "=")
	}
	switch q := r.URL.Query(); {
	case down:
		panic(http.ErrAbortHandler)
	case k == nil || q.Get(key) != value:
		a.t.Errorf("request for %s", r.URL)
		status(w, http.StatusForbidden, metav1.StatusReasonForbidden)
	case q.Get("watch") == "":
		a.list(w, k)
	default:
		from, err := strconv.Atoi(q.Get("resourceVersion"))
		if seconds, _ := strconv.Atoi(q.Get("timeoutSeconds")); err != nil || from > now || seconds < 300 || seconds > 600 {
			a.t.Errorf("watch of %s", r.URL)
		}
		a.watch(w, r, k, from)
	}
}

func (a *apiServer) list(w http.ResponseWriter, k *kept) {
	a.lock.Lock()
	a.lists++
	items := []runtime.Object{}
	for _, o := range k.objects {
		items = append(items, o)
	}
	body := map[string]any{"apiVersion": k.apiVersion, "kind": k.kind + "List", "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version)}}
	text, err := json.Marshal(body)
	a.lock.Unlock()
	if err != nil {
		a.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(text)
}

func (a *apiServer) watch(w http.ResponseWriter, r *http.Request, k *kept, from int) {
	a.lock.Lock()
	cut := k.cut
	a.lock.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	encoder := json.NewEncoder(w)
	for {
		http.NewResponseController(w).Flush()
		a.lock.Lock()
		changed := k.changed
		gone := from < k.oldest
		var events []change
		for _, e := range k.events {
			if e.version > from {
				events = append(events, e)
				from = e.version
			}
		}
		if gone {
			events = []change{{Type: "ERROR", Object: metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
				Status: "Failure", Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version"}}}
		}
		for _, e := range events {
			if err := encoder.Encode(e); err != nil {
				a.t.Error(err)
			}
		}
		a.lock.Unlock()
		if gone {
			return
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func status(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Reason: reason})
}

// put adds or changes an object, and tells those who watch.
func (a *apiServer) put(o runtime.Object) {
	a.lock.Lock()
	defer a.lock.Unlock()
	k, named := a.keptOf(o)
	kind := "ADDED"
	if k.objects[named.Name] != nil {
		kind = "MODIFIED"
	}
	a.version++
	named.ResourceVersion = strconv.Itoa(a.version)
	k.objects[named.Name] = o
	k.tell(change{a.version, kind, o})
}

func (a *apiServer) remove(o runtime.Object) {
	a.lock.Lock()
	defer a.lock.Unlock()
	k, named := a.keptOf(o)
	a.version++
	delete(k.objects, named.Name)
	k.tell(change{a.version, "DELETED", o})
}

// bookmark says to those who watch slices that nothing has happened.
func (a *apiServer) bookmark() {
	a.lock.Lock()
	defer a.lock.Unlock()
	o := slice("bookmark")
	k, _ := a.keptOf(o)
	a.version++
	o.ResourceVersion = strconv.Itoa(a.version)
	k.tell(change{a.version, "BOOKMARK", &discovery.EndpointSlice{TypeMeta: o.TypeMeta, ObjectMeta: metav1.ObjectMeta{ResourceVersion: o.ResourceVersion}}})
}

func (k *kept) tell(e change) {
	k.events = append(k.events, e)
	close(k.changed)
	k.changed = make(chan struct{})
}

// forget changes an object behind the back of those who watch, who find out that they are too late.
func (a *apiServer) forget(o runtime.Object) {
	a.lock.Lock()
	defer a.lock.Unlock()
	k, named := a.keptOf(o)
	a.version += 10
	k.oldest, k.events = a.version, nil
	k.objects[named.Name] = o
	close(k.changed)
	k.changed = make(chan struct{})
}

// cut ends all watches, as a server does when their time is over.
func (a *apiServer) cut() {
	a.lock.Lock()
	defer a.lock.Unlock()
	for _, k := range a.kinds {
		close(k.cut)
		k.cut = make(chan struct{})
	}
}

// goAway drops every connection, and those that come, until it is told otherwise.
func (a *apiServer) goAway(down bool) {
	a.lock.Lock()
	a.down = down
	a.lock.Unlock()
	if down {
		a.http.CloseClientConnections()
	}
}

func (a *apiServer) listsServed() int {
	a.lock.Lock()
	defer a.lock.Unlock()
	return a.lists
}

func (a *apiServer) keptOf(o runtime.Object) (*kept, *metav1.ObjectMeta) {
	switch o := o.(type) {
	case *discovery.EndpointSlice:
		return a.kinds["/apis/discovery.k8s.io/v1/namespaces/test/endpointslices"], &o.ObjectMeta
	case *apps.StatefulSet:
		return a.kinds["/apis/apps/v1/namespaces/test/statefulsets"], &o.ObjectMeta
	}
	panic(fmt.Sprintf("BUG: %T", o))
}

// slice is an EndpointSlice of pods, each as in "nodes-0 10.0.0.1 ready serving", where "-serving" is false and a condition
// that is not there is nil.
func slice(name string, pods ...string) *discovery.EndpointSlice {
	port, protocol, ws := int32(8080), core.ProtocolTCP, portName
	s := &discovery.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "test"}, AddressType: discovery.AddressTypeIPv4,
		Ports: []discovery.EndpointPort{{Name: &ws, Port: &port, Protocol: &protocol}}}
	for _, text := range pods {
		words := strings.Fields(text)
		e := discovery.Endpoint{Hostname: &words[0], Addresses: []string{words[1]}, TargetRef: &core.ObjectReference{Kind: "Pod", Name: words[0]}}
		if strings.Contains(words[1], ":") {
			s.AddressType = discovery.AddressTypeIPv6
		}
		condition := func(name string) *bool {
			yes := slices.Contains(words[2:], name)
			if !yes && !slices.Contains(words[2:], "-"+name) {
				return nil
			}
			return &yes
		}
		e.Conditions = discovery.EndpointConditions{Ready: condition("ready"), Serving: condition("serving"), Terminating: condition("terminating")}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func set(replicas int32) *apps.StatefulSet {
	return &apps.StatefulSet{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: metav1.ObjectMeta{Name: "nodes", Namespace: "test"}, Spec: apps.StatefulSetSpec{Replicas: &replicas}}
}
