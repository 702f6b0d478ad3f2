// Command rolling restarts the balancers of a cluster one after the other under thousands of clients, and says how they came
// back: how many a second, and whether anybody missed a message.
//
//	make bench-rolling
//	go run ./bench/rolling -program ./rayflux -clients 5000 -chart bench/results/rolling.svg
//
// With -age it adds a balancer instead, and shows how clients spread over all as their connections grow old:
//
//	go run ./bench/rolling -program ./rayflux -age 60s -chart bench/results/spread.svg
//
// Clients choose among the balancers that are ready at random, as behind a Kubernetes service. Each follows one topic and comes
// back with its position. Everything runs on one machine, unpinned: what is shown is when clients come, not how fast a server is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"rayflux/bench"
)

type options struct {
	program   string
	clients   int
	balancers int
	topics    int
	rate      int // publishes a second, over all topics
	drain     time.Duration
	age       time.Duration // 0: restart
	chart     string        // file; "": none
	out       io.Writer
}

func main() { bench.RunTool("rolling", parse, (*options).run) }

func parse(args []string) (*options, error) {
	o := &options{out: os.Stdout}
	set := flag.NewFlagSet("rolling", flag.ContinueOnError)
	set.StringVar(&o.program, "program", "./rayflux", "the server")
	set.IntVar(&o.clients, "clients", 5000, "clients, each with one topic")
	set.IntVar(&o.balancers, "balancers", 3, "balancers; with -age, those before one is added")
	set.IntVar(&o.topics, "topics", 100, "topics")
	set.IntVar(&o.rate, "rate", 100, "publishes a second, to each topic in turn")
	set.DurationVar(&o.drain, "drain", 20*time.Second, "the balancers' --drain-timeout")
	set.DurationVar(&o.age, "age", 0, "the balancers' --max-connection-age; 0: restart them")
	set.StringVar(&o.chart, "chart", "", "draw the clients over time into this .svg or .png file")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if o.clients < 1 || o.balancers < 2 || o.topics < 1 || o.rate < 1 || set.NArg() > 0 {
		return nil, errors.New("want a client, two balancers, a topic and a publish a second at least, and nothing else")
	}
	return o, nil
}

// run is the whole of it; an error is also what a client missed.
func (o *options) run(ctx context.Context) (err error) {
	f, err := o.startFleet(ctx)
	defer func() { err = errors.Join(err, f.stop()) }()
	if err != nil {
		return err
	}
	w := newCrowd(o, f)
	defer w.leave()
	began := time.Now()
	if err := w.arrive(ctx); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%d clients came to %d balancers in %.1f s\n", o.clients, o.balancers, time.Since(began).Seconds())
	w.record()
	publishing, stopPublishing := context.WithCancel(ctx)
	published := make(chan publishes, 1)
	go func() { published <- w.publish(publishing) }()
	if o.age > 0 {
		err = o.spread(ctx, f, w)
	} else {
		err = o.restart(ctx, f, w)
	}
	stopPublishing()
	sent := <-published
	if err == nil {
		err = w.judge(ctx, sent)
	}
	return errors.Join(err, o.draw(w))
}

// pause lets the clients be for a while.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restart drains each balancer in turn, and puts another in its place.
func (o *options) restart(ctx context.Context, f *fleet, w *crowd) error {
	for i := range o.balancers {
		if err := pause(ctx, o.drain/10); err != nil {
			return err
		}
		held, from := w.held(i), w.since()
		if err := f.restart(ctx, i); err != nil {
			return err
		}
		took := w.since() - from
		came := w.cameBetween(from, w.since())
		fmt.Fprintf(o.out, "balancer %d had %d clients and was gone after %.1f s; returns: %d, %.0f a second on average, %d in the busiest second\n",
			i, held, took, came.total(), float64(came.total())/took, came.most())
	}
	return pause(ctx, o.drain/10)
}

// spread adds a balancer, and waits for two lives of a connection.
func (o *options) spread(ctx context.Context, f *fleet, w *crowd) error {
	if err := pause(ctx, o.age/10); err != nil {
		return err
	}
	if err := f.add(ctx); err != nil {
		return err
	}
	from := w.since()
	for range 2 {
		if err := pause(ctx, o.age); err != nil {
			return err
		}
		came := w.cameBetween(from, w.since())
		fmt.Fprintf(o.out, "%.0f s after balancer %d came:", w.since()-from, o.balancers)
		for i := range o.balancers + 1 {
			fmt.Fprintf(o.out, " %d", w.held(i))
		}
		fmt.Fprintf(o.out, " clients at each; %d returns, %d in the busiest second\n", came.total(), came.most())
	}
	return nil
}

func (o *options) draw(w *crowd) error {
	if o.chart == "" {
		return nil
	}
	title, note := fmt.Sprintf("%d clients while %d balancers are restarted", o.clients, o.balancers), fmt.Sprintf("drain window %v each", o.drain)
	if o.age > 0 {
		title, note = fmt.Sprintf("%d clients after a balancer is added", o.clients), fmt.Sprintf("connections live for %v", o.age)
	}
	picture, err := bench.DrawTimelines(o.chart, title, w.returns(note), w.connections())
	if err != nil {
		return err
	}
	return os.WriteFile(o.chart, picture, 0o644)
}
