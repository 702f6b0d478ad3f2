package k8s

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	apps "k8s.io/api/apps/v1"
	discovery "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

const (
	listTimeout = 10 * time.Second // then a list has failed
	watchMin    = 5 * time.Minute  // after which the list is fetched anew, up to twice as long
	watchShort  = time.Second      // a watch that ends sooner is not begun anew at once
)

// feed follows the objects of one kind: it lists them, watches what changes, and lists them again when the watch has
// ended, however it did. To go on watching from where the last one ended would spare a short list each few minutes, and would
// let one lost event stay lost; and it would need a case for when that is no longer possible (410), which this has not.
type feed struct {
	source   *source
	client   rest.Interface
	resource string
	choice   metav1.ListOptions

	// The source's lock guards these.
	listed  bool
	objects map[string]runtime.Object // by name
	err     error                     // of the last attempt; nil since a list went well
}

// kinds are those that are understood: two of the hundred that client-go's own clients bring along.
var kinds = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{discovery.AddToScheme, apps.AddToScheme} {
		if err := add(s); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	metav1.AddToGroupVersion(s, discovery.SchemeGroupVersion)
	metav1.AddToGroupVersion(s, apps.SchemeGroupVersion)
	return s
}()

var parameters = runtime.NewParameterCodec(kinds)

func clientOf(config *rest.Config, group schema.GroupVersion) (rest.Interface, error) {
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = "/apis", &group
	c.NegotiatedSerializer = serializer.NewCodecFactory(kinds).WithoutConversion()
	return rest.RESTClientFor(c)
}

// run follows until the end of ctx. What ends at once, well or not, is not begun again at once.
func (f *feed) run(ctx context.Context) {
	again := f.source.backoff
	for {
		lasted, err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.failed(err)
		}
		if lasted {
			again = f.source.backoff
		}
		if (err != nil || !lasted) && !sleep(ctx, again.Step()) {
			return
		}
	}
}

// follow lists once and watches until that ends. lasted: it watched for a while. That a watch ends is no error, nor that the
// server has forgotten (410) what was so long ago.
func (f *feed) follow(ctx context.Context) (lasted bool, err error) {
	version, err := f.list(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot list %s: %w", f.resource, err)
	}
	began := time.Now()
	err = f.watch(ctx, version)
	lasted = time.Since(began) >= watchShort
	if err == nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return lasted, nil
	}
	return lasted, fmt.Errorf("cannot watch %s: %w", f.resource, err)
}

// list fetches all objects, and returns the version from where to watch.
func (f *feed) list(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	all, err := f.request(f.choice).Do(ctx).Get()
	if err != nil {
		return "", err
	}
	of, err := meta.ListAccessor(all)
	if err != nil {
		return "", err
	}
	objects := map[string]runtime.Object{}
	err = meta.EachListItem(all, func(object runtime.Object) error {
		named, err := meta.Accessor(object)
		if err == nil {
			objects[named.GetName()] = object
		}
		return err
	})
	if err != nil {
		return "", err
	}
	f.source.lock.Lock()
	f.objects, f.listed, f.err = objects, true, nil
	f.source.lock.Unlock()
	f.source.tell()
	return of.GetResourceVersion(), nil
}

// request is tried once: client-go's ten times, a second apart, would keep a failure quiet for as long.
func (f *feed) request(choice metav1.ListOptions) *rest.Request {
	return f.client.Get().MaxRetries(0).Namespace(f.source.namespace).Resource(f.resource).VersionedParams(&choice, parameters)
}

// watch takes changes until the watch ends, for which the server has a time. A connection whose other end is gone without a
// word is found by client-go: HTTP/2 pings it after 30 s of silence.
func (f *feed) watch(ctx context.Context, version string) error {
	choice := f.choice
	choice.Watch, choice.ResourceVersion, choice.AllowWatchBookmarks = true, version, true
	seconds := int64((watchMin + rand.N(watchMin)).Seconds())
	choice.TimeoutSeconds = &seconds
	w, err := f.request(choice).Watch(ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if err := f.take(&e); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) take(e *watch.Event) error {
	switch e.Type {
	case watch.Bookmark: // it would say from where to go on watching
		return nil
	case watch.Error:
		return apierrors.FromObject(e.Object)
	case watch.Added, watch.Modified, watch.Deleted:
	default:
		return fmt.Errorf("event %.40q is not known", e.Type)
	}
	named, err := meta.Accessor(e.Object)
	if err != nil {
		return errors.New("an event has no object")
	}
	f.source.lock.Lock()
	if e.Type == watch.Deleted {
		delete(f.objects, named.GetName())
	} else {
		f.objects[named.GetName()] = e.Object
	}
	f.source.lock.Unlock()
	f.source.tell()
	return nil
}

func (f *feed) failed(err error) {
	f.source.lock.Lock()
	f.err = err
	f.source.lock.Unlock()
	f.source.tell()
}
