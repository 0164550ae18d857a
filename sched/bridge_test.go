package sched_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

func newRing(t testing.TB, capacity int, kind lwp.RingKind) *lwp.Ring[uint64] {
	t.Helper()
	r, err := lwp.NewRing[uint64](capacity, kind)
	if err != nil {
		t.Fatal("NewRing: ", err)
	}
	t.Cleanup(func() { r.Free() })
	return r
}

func newHandler[T any](t testing.TB, fn func(*T), limit int) *lwp.Handler[T] {
	t.Helper()
	h, err := lwp.NewHandlerConfig(fn, lwp.HandlerConfig{Limit: limit})
	if err != nil {
		t.Fatal("NewHandler: ", err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// A port is one end of a ring, of a fiber, a thread or a goroutine.
type port struct {
	r        *lwp.Ring[uint64]
	id       uint64
	n        int
	left     *atomic.Int64
	counts   []atomic.Uint32
	disorder atomic.Int64
	failed   bool
}

func portSend(p *port) {
	for i := range p.n {
		v := p.id<<32 | uint64(i)
		for {
			var err error
			if i%2 == 0 {
				err = p.r.Send(v)
			} else {
				err = p.r.SendFor(v, time.Duration(i%5)*10*time.Microsecond)
			}
			if err == nil {
				break
			}
			if err != lwp.ErrDeadline {
				p.failed = true
				return
			}
		}
	}
	if p.left.Add(-1) == 0 {
		p.r.Close()
	}
}

func portRecv(p *port) {
	var last [16]uint32
	for i := 0; ; i++ {
		var v uint64
		var err error
		if i%2 == 0 {
			v, err = p.r.Recv()
		} else if v, err = p.r.RecvFor(time.Duration(i%5) * 10 * time.Microsecond); err == lwp.ErrDeadline {
			continue
		}
		if err != nil {
			p.failed = err != lwp.ErrRingClosed
			return
		}
		id, seq := v>>32, uint32(v)+1
		if seq <= last[id] {
			p.disorder.Add(1)
		}
		last[id] = seq
		p.counts[int(id)*p.n+int(seq-1)].Add(1)
	}
}

// TestRingBetweenAll: fibers of two schedulers, threads and goroutines at both
// ends lose and double nothing.
func TestRingBetweenAll(t *testing.T) {
	a, b := begin(t, 2), begin(t, 1)
	if os.Getenv("LWPRT_STRESS") == "full" {
		lwptest.Collect(t)
	}
	for _, kind := range []lwp.RingKind{lwp.MPMC, lwp.MPSC, lwp.SPSC} {
		for _, capacity := range []int{1, 4, 64} {
			for turn := range lwptest.Soak(2, 1) {
				ringBetween(t, a, b, kind, capacity, turn)
			}
		}
	}
}

func ringBetween(t *testing.T, a, b *sched.Scheduler, kind lwp.RingKind, capacity, turn int) {
	t.Helper()
	senders, receivers := 8, 4
	if kind != lwp.MPMC {
		receivers = 1
	}
	if kind == lwp.SPSC {
		senders = 1
	}
	n := lwptest.Count(300, 100)
	r := newRing(t, capacity, kind)
	var left atomic.Int64
	left.Store(int64(senders))
	counts := make([]atomic.Uint32, senders*n)
	ports := make([]port, senders+receivers)
	var joins []func() error
	var wg sync.WaitGroup
	for i := range ports {
		p := &ports[i]
		p.r, p.id, p.n, p.left, p.counts = r, uint64(i), n, &left, counts
		fn := portSend
		if i >= senders {
			fn = portRecv
		}
		switch (i + turn) % 4 {
		case 0:
			joins = append(joins, spawn(t, a, fn, p).Join)
		case 1:
			joins = append(joins, spawn(t, b, fn, p).Join)
		case 2:
			th, err := lwp.Start(fn, p)
			if err != nil {
				t.Fatal(err)
			}
			joins = append(joins, th.Join)
		default:
			wg.Go(func() { fn(p) })
		}
	}
	for _, join := range joins {
		within(t, "Join", join)
	}
	lwptest.Within(t, "the goroutines", wg.Wait)
	lost, disorder := 0, int64(0)
	for i := range counts {
		if counts[i].Load() != 1 {
			lost++
		}
	}
	for i := range ports {
		disorder += ports[i].disorder.Load()
		if ports[i].failed {
			t.Errorf("port %d failed", i)
		}
	}
	if lost != 0 || disorder != 0 {
		t.Errorf("kind %d, capacity %d: %d values did not come once, %d out of order", kind, capacity, lost, disorder)
	}
	r.Free()
}

// TestFiberAtARingIsInNoDeadlock: it waits for somebody outside; Wait, Join and
// Close do too.
func TestFiberAtARingIsInNoDeadlock(t *testing.T) {
	s := begin(t, 2)
	r := newRing(t, 1, lwp.MPMC)
	type reader struct {
		r   *lwp.Ring[uint64]
		got atomic.Uint64
	}
	v := &reader{r: r}
	f := spawn(t, s, func(v *reader) {
		for {
			x, err := v.r.Recv()
			if err != nil {
				return
			}
			v.got.Add(x)
		}
	}, v)
	for i := range 20 {
		if err := s.WaitFor(time.Duration(i) * 100 * time.Microsecond); err != sched.ErrTimeout {
			t.Fatal("WaitFor: ", err)
		}
		want(t, "Send", r.Send(1), nil)
	}
	lwptest.Eventually(t, "the fiber to wait", func() bool {
		var b strings.Builder
		s.Dump(&b)
		return v.got.Load() == 20 && strings.Contains(b.String(), "parked: receive from a ring")
	})
	// With the ring closed nothing keeps Wait, though nobody joins before it.
	time.AfterFunc(5*time.Millisecond, func() { r.Close() })
	within(t, "Wait", s.Wait)
	within(t, "Join", f.Join)
	// And a real deadlock is told as soon as those who wait outside are done.
	r = newRing(t, 1, lwp.MPMC)
	v.r = r
	f = spawn(t, s, func(v *reader) { v.r.Recv() }, v)
	p := spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	time.AfterFunc(5*time.Millisecond, func() { r.Send(1) })
	dead := new(sched.DeadlockError)
	lwptest.Within(t, "Wait", func() {
		if err := s.Wait(); !errors.As(err, &dead) || len(dead.Fibers) != 1 {
			t.Errorf("Wait: %v", err)
		}
	})
	want(t, "Unpark", p.Unpark(), nil)
	within(t, "Join", p.Join)
	within(t, "Join", f.Join)
}

// TestRingDeadlinesOfFibers: a deadline that races with the value, and an Unpark
// that comes meanwhile is kept.
func TestRingDeadlinesOfFibers(t *testing.T) {
	s := begin(t, 2)
	r := newRing(t, 1, lwp.MPMC)
	type racer struct {
		r                      *lwp.Ring[uint64]
		n, got, late, unparked int
		early                  int
	}
	x := &racer{r: r, n: lwptest.Soak(1000, 300)}
	f := spawn(t, s, func(x *racer) {
		for i := range x.n {
			d := time.Duration(i%80) * time.Microsecond
			begun := futex.Monotonic()
			_, err := x.r.RecvFor(d)
			switch err {
			case nil:
				x.got++
			case lwp.ErrDeadline:
				if x.late++; futex.Monotonic()-begun < int64(d) {
					x.early++
				}
			default:
				return
			}
			if i%16 == 0 { // of an Unpark that has come while it waited
				if sched.ParkFor("the test", 0) {
					x.unparked++
				}
			}
		}
	}, x)
	sent := 0
	for over := false; !over; {
		f.Unpark()
		if r.SendFor(1, 20*time.Microsecond) == nil {
			sent++
		}
		select {
		case <-time.After(time.Duration(sent%30) * time.Microsecond):
		case <-t.Context().Done():
		}
		over = s.WaitFor(0) == nil
	}
	within(t, "Join", f.Join)
	for {
		if _, err := r.TryRecv(); err != nil {
			break
		}
		sent--
	}
	if x.got != sent || x.got+x.late != x.n || x.early != 0 || x.unparked == 0 && x.n > 100 {
		t.Errorf("%d sent; %+v", sent, *x)
	}
	t.Logf("%+v", *x)
}

// TestSignalOfAFiberIsNoLaterWaits: a Parker's signal and its deadline race, and a
// Blocking call or a Sleep that follows is not ended by what is left of it.
func TestSignalOfAFiberIsNoLaterWaits(t *testing.T) {
	other := begin(t, 1)
	s := begin(t, 2) // closed first, with the threads of its blocking calls
	type duel struct {
		n                         int
		p                         lwp.Parker
		open                      atomic.Uint32 // 1: published, 2: found, 0: taken back
		over                      atomic.Bool
		came, late, signals, hurt int
		calls                     int
	}
	signal := func(d *duel) {
		for i := 0; !d.over.Load(); i++ {
			if d.open.CompareAndSwap(1, 2) {
				d.signals++
				d.p.Signal()
			} else if sched.Yield(); i%8 == 0 {
				sched.Sleep(time.Duration(i%60) * time.Microsecond)
			}
		}
	}
	for who := range 4 {
		d := &duel{n: lwptest.Soak(500, 100)}
		f := spawn(t, s, func(d *duel) {
			for i := range d.n {
				d.p.Init()
				d.open.Store(1)
				if d.p.Await(futex.After(time.Duration(i%60)*time.Microsecond), "the duel") {
					d.came++
				} else if d.open.CompareAndSwap(1, 0) {
					d.p.Cancel()
					d.late++
				} else {
					d.p.Await(futex.Never, "the duel")
					d.came++
				}
				was := d.calls
				sched.Blocking(func(d *duel) { d.calls++ }, d)
				if d.calls != was+1 {
					d.hurt++
				}
				begun := futex.Monotonic()
				sched.Sleep(5 * time.Microsecond)
				if futex.Monotonic()-begun < 5000 {
					d.hurt++
				}
			}
			d.over.Store(true)
		}, d)
		switch who {
		case 0: // a fiber of the same scheduler, a fiber of another, a thread, a goroutine
			run(t, s, signal, d)
		case 1:
			run(t, other, signal, d)
		case 2:
			lwptest.OnThread(t, signal, d)
		default:
			lwptest.Within(t, "the goroutine", func() { signal(d) })
		}
		within(t, "Join", f.Join)
		if d.came != d.signals || d.came+d.late != d.n || d.hurt != 0 {
			t.Errorf("%d: %d signals, %d came, %d of %d late; %d later waits were hurt", who, d.signals, d.came, d.late, d.n, d.hurt)
		}
	}
}
