package k8s

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apps "k8s.io/api/apps/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"rayflux/balancer/cluster"
	"rayflux/engine"
)

// Scheme is what the text of such a source begins with.
const Scheme = "k8s:"

// backoff is how long to wait before the API server is asked again that did not answer, or refused. It doubles at most
// to where a cluster whose API server is back is not blind for long, and half as much again is added at random.
var backoff = wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 20, Cap: 10 * time.Second}

// source is the pods behind one headless service. Used by one goroutine, but for what lock guards.
type source struct {
	namespace, service string
	config             func() (*rest.Config, error) // how to reach the API server
	backoff            wait.Backoff

	feeds []*feed // in the order of errors and of slotsNow; nil before the first Next
	ended sync.WaitGroup
	again wait.Backoff // what is left of backoff, until config has worked

	news chan struct{} // one token: a feed has something new to say
	lock sync.Mutex    // of what feeds found
}

var _ cluster.Source = (*source)(nil)

// Parse reads what follows the scheme: namespace/service. It asks nobody.
func Parse(text string) (cluster.Source, error) {
	namespace, service, found := strings.Cut(text, "/")
	if !found {
		return nil, fmt.Errorf("%.80q is no service, want k8s:NAMESPACE/SERVICE", text)
	}
	if wrong := validation.IsDNS1123Label(namespace); len(wrong) > 0 {
		return nil, fmt.Errorf("namespace %.80q: %s", namespace, wrong[0])
	}
	if wrong := validation.IsDNS1035Label(service); len(wrong) > 0 {
		return nil, fmt.Errorf("service %.80q: %s", service, wrong[0])
	}
	return newSource(namespace, service, rest.InClusterConfig), nil
}

func newSource(namespace, service string, config func() (*rest.Config, error)) *source {
	return &source{namespace: namespace, service: service, config: config, backoff: backoff, again: backoff, news: make(chan struct{}, 1)}
}

func (s *source) String() string { return Scheme + s.namespace + "/" + s.service }

// Next is part of [cluster.Source].
func (s *source) Next(ctx context.Context) ([]engine.Slot, error) {
	if s.feeds == nil {
		if err := s.begin(ctx); err != nil {
			return nil, err
		}
	}
	for {
		select {
		case <-ctx.Done():
		case <-s.news:
		}
		if ctx.Err() != nil {
			s.ended.Wait()
			return nil, ctx.Err()
		}
		if slots, err := s.slotsNow(); err != nil || slots != nil {
			return slots, err
		}
	}
}

// begin starts the feeds. A process outside of a cluster waits before it says so, as for anything else that goes wrong.
func (s *source) begin(ctx context.Context) error {
	config, err := s.config()
	if err == nil {
		err = s.makeFeeds(config)
	}
	if err != nil {
		s.feeds = nil
		if !sleep(ctx, s.again.Step()) {
			return ctx.Err()
		}
		return err
	}
	for _, f := range s.feeds {
		s.ended.Go(func() { f.run(ctx) })
	}
	return nil
}

func (s *source) makeFeeds(config *rest.Config) error {
	config = rest.CopyConfig(config)
	config.WarningHandler = rest.NoWarnings{} // it has a log of its own
	config.QPS = -1                           // feeds wait by themselves
	endpoints, err := clientOf(config, discovery.SchemeGroupVersion)
	if err != nil {
		return err
	}
	sets, err := clientOf(config, apps.SchemeGroupVersion)
	if err != nil {
		return err
	}
	s.feeds = []*feed{
		{source: s, client: endpoints, resource: "endpointslices", choice: metav1.ListOptions{
			LabelSelector: labels.Set{discovery.LabelServiceName: s.service}.String()}},
		// The selector is what makes a Role with the set's name allow both list and watch.
		{source: s, client: sets, resource: "statefulsets", choice: metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, s.service).String()}},
	}
	return nil
}

// slotsNow makes the row of what the feeds have found. While one of them fails it is that failure: what the other finds
// alone would be a row of a length that nobody else sees. Neither: something is not known yet.
func (s *source) slotsNow() ([]engine.Slot, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	known := true
	for _, f := range s.feeds {
		if f.err != nil {
			return nil, f.err
		}
		known = known && f.listed
	}
	if !known {
		return nil, nil
	}
	var endpoints []*discovery.EndpointSlice
	for _, object := range s.feeds[0].objects {
		if e, ok := object.(*discovery.EndpointSlice); ok {
			endpoints = append(endpoints, e)
		}
	}
	wanted := 0 // without a set of this name, as many as there are
	for _, object := range s.feeds[1].objects {
		if set, ok := object.(*apps.StatefulSet); ok {
			wanted = replicas(set)
		}
	}
	slots, err := slotsOf(endpoints, wanted)
	if err != nil {
		return nil, fmt.Errorf("service %s of namespace %s: %w", s.service, s.namespace, err)
	}
	return slots, nil
}

// replicas is one more than the highest ordinal that a set ought to have.
func replicas(set *apps.StatefulSet) int {
	n := 1 // what a set means that does not say it
	if set.Spec.Replicas != nil {
		n = int(*set.Spec.Replicas)
	}
	if n > 0 && set.Spec.Ordinals != nil {
		n += int(set.Spec.Ordinals.Start)
	}
	return n
}

// tell makes Next look again.
func (s *source) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// portName is that of the public port, where a service has several.
const portName = "ws"

var errNobody = errors.New("no pod has an address yet")

// slotsOf gives each pod the slot of its ordinal, in a row that is at least as long as wanted.
//
// A scale-in is over when its last pod is gone: until then that pod has its slot, and drains. A scale-out makes the row longer
// before the pod is there; growing with the pod instead would make the length of the row depend on when a process began to look
// whenever the last pod is missing, and processes that see different lengths send topics to different nodes for good.
func slotsOf(endpoints []*discovery.EndpointSlice, wanted int) ([]engine.Slot, error) {
	pods, err := podsOf(endpoints, discovery.AddressTypeIPv4)
	if err == nil && len(pods) == 0 { // a pod that has both is one pod
		pods, err = podsOf(endpoints, discovery.AddressTypeIPv6)
	}
	switch {
	case err != nil:
		return nil, err
	case len(pods) == 0:
		return nil, errNobody
	}
	n := wanted
	for _, p := range pods {
		n = max(n, p.ordinal+1)
	}
	if n > cluster.SlotsMax {
		return nil, fmt.Errorf("%d slots, limit %d", n, cluster.SlotsMax)
	}
	slots := make([]engine.Slot, n)
	for _, p := range pods {
		if s := &slots[p.ordinal]; s.Address == "" || better(p.Slot, *s) {
			*s = p.Slot
		}
	}
	return slots, nil
}

// better decides between two entries for one pod. An entry may be in two slices while it moves between them, with
// conditions of different age, and a pod that was replaced may be there beside its successor.
func better(a, b engine.Slot) bool {
	if a.Draining != b.Draining {
		return b.Draining
	}
	return a.Address < b.Address // that all processes take the same
}

// sleep reports whether d has passed before the end of ctx.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
