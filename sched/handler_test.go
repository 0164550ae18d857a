package sched_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

type query struct{ in, out int }

// TestFibersInHandlersTieUpNothing: a thousand fibers wait in handlers whose
// functions block; other fibers run, and there are few threads.
func TestFibersInHandlersTieUpNothing(t *testing.T) {
	s := begin(t, 2)
	open := make(chan struct{})
	var in atomic.Int64
	h := newHandler(t, func(q *query) {
		in.Add(1)
		<-open
		q.out = q.in + 1
	}, 0)
	type caller struct {
		h  *lwp.Handler[query]
		i  int
		ok *atomic.Int64
	}
	n := lwptest.Count(1000, 200)
	callers := make([]caller, n)
	var ok, ran atomic.Int64
	var fs []sched.Fiber
	tasks := lwptest.NumTasks()
	for i := range callers {
		callers[i] = caller{h: h, i: i, ok: &ok}
		fs = append(fs, spawn(t, s, func(c *caller) {
			q := query{in: c.i}
			if c.h.Call(&q) == nil && q.out == c.i+1 {
				c.ok.Add(1)
			}
		}, &callers[i]))
	}
	lwptest.Eventually(t, "all to call", func() bool { return in.Load() == int64(n) })
	if now := lwptest.NumTasks(); now > tasks+10 && !lwptest.Emulated() {
		t.Errorf("%d threads, and %d with %d calls", tasks, now, n)
	}
	for range 100 {
		run(t, s, count, &ran)
	}
	if err := s.WaitFor(time.Millisecond); err != sched.ErrTimeout {
		t.Error("WaitFor: ", err)
	}
	close(open)
	for _, f := range fs {
		within(t, "Join", f.Join)
	}
	if ok.Load() != int64(n) || ran.Load() != 100 {
		t.Errorf("%d of %d calls went well, %d others ran", ok.Load(), n, ran.Load())
	}
}

// TestHandlerCallsBack: a function spawns, joins and unparks fibers of the
// scheduler that its caller is on.
func TestHandlerCallsBack(t *testing.T) {
	s := begin(t, 1)
	type errand struct {
		s    *sched.Scheduler
		self sched.Fiber
		ran  atomic.Int64
		err  [3]error
	}
	e := &errand{s: s}
	back := newHandler(t, func(q **errand) {
		e := *q
		f, err := sched.Spawn(e.s, count, &e.ran)
		e.err[0] = err
		e.err[1] = f.Join()
		e.err[2] = e.self.Unpark()
	}, 0)
	type caller struct {
		h *lwp.Handler[*errand]
		e *errand
		n int
	}
	c := &caller{h: back, e: e}
	run(t, s, func(c *caller) {
		c.e.self = sched.Current()
		for range 10 {
			if c.h.Call(&c.e) != nil {
				return
			}
			sched.Park("the errand") // at once
			c.n++
		}
	}, c)
	if c.n != 10 || e.ran.Load() != 10 || errors.Join(e.err[:]...) != nil {
		t.Errorf("%d errands, %d ran, %v", c.n, e.ran.Load(), e.err)
	}
}

// TestCloseWaitsForHandlers: a scheduler closes while fibers are in handlers.
func TestCloseWaitsForHandlers(t *testing.T) {
	lwptest.SkipRace(t)
	open := make(chan struct{})
	var in, out atomic.Int64
	h := newHandler(t, func(q *query) {
		in.Add(1)
		<-open
		q.out = 1
	}, 3)
	s, err := sched.New(sched.Config{Workers: 2, StackSize: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	type caller struct {
		h   *lwp.Handler[query]
		out *atomic.Int64
	}
	for range 10 {
		spawnAttr(t, s, func(c *caller) {
			var q query
			if c.h.Call(&q) == nil {
				c.out.Add(int64(q.out))
			}
		}, &caller{h, &out}, sched.Attr{Detached: true})
	}
	lwptest.Eventually(t, "some to call", func() bool { return in.Load() == 3 })
	if left := new(sched.LeftError); !errors.As(s.Shutdown(5*time.Millisecond), &left) || len(left.Fibers) != 10 {
		t.Errorf("Shutdown while fibers are in handlers: %v", left)
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	time.Sleep(2 * time.Millisecond)
	select {
	case err := <-closed:
		t.Fatal("Close does not wait: ", err)
	default:
	}
	close(open)
	within(t, "Close", func() error { return <-closed })
	if out.Load() != 10 {
		t.Errorf("%d of 10 calls went well", out.Load())
	}
}

// TestHandlerPanicOnFiber: the error is the fiber's, wherever that goes on.
func TestHandlerPanicOnFiber(t *testing.T) {
	s := begin(t, 2)
	h := newHandler(t, func(q *query) { panic(fmt.Sprint("query ", q.in)) }, 0)
	type caller struct {
		h     *lwp.Handler[query]
		id    int
		wrong atomic.Int64
		f     lwp.Ref[lwp.Fault]
	}
	callers := make([]caller, 50)
	var fs []sched.Fiber
	for i := range callers {
		callers[i].h, callers[i].id = h, i
		fs = append(fs, spawn(t, s, func(c *caller) {
			for i := range 5 {
				q := query{in: c.id*10 + i}
				f, ok := c.h.Call(&q).(*lwp.Fault)
				if !ok || f.Reason != lwp.HandlerPanic {
					c.wrong.Add(1)
					return
				}
				c.f.Set(f)
			}
			sched.Park("the test")
		}, &callers[i]))
	}
	s.Hold()
	defer s.Release()
	for i := range callers {
		text := fmt.Sprintf("query %d4", i)
		if i == 0 {
			text = "query 4"
		}
		lwptest.Eventually(t, "the last panic", func() bool {
			var b strings.Builder
			s.Dump(&b)
			return strings.Count(b.String(), "parked: the test") == len(callers)-i
		})
		if f := callers[i].f.Ptr(); f == nil || !strings.Contains(f.Error(), ": "+text+" in ") || callers[i].wrong.Load() != 0 {
			t.Errorf("fiber %d: %v", i, f)
		}
		want(t, "Unpark", fs[i].Unpark(), nil)
		within(t, "Join", fs[i].Join)
	}
}

// TestSmallStacksAtTheBridge: whatever room a fiber has left, a call goes well or
// ends the fiber alone; nobody is left waiting, and the ring and the handler work.
func TestSmallStacksAtTheBridge(t *testing.T) {
	s := begin(t, 1)
	type diver struct {
		r    *lwp.Ring[uint64]
		h    *lwp.Handler[query]
		deep int
		what int
		ok   bool
	}
	h := newHandler(t, func(q *query) { q.out = 1 }, 0)
	overflows, fine := 0, 0
	for what := range 5 {
		for deep := 0; deep < 1<<11; deep += 16 << (deep >> 9) {
			r := newRing(t, 1, lwp.RingKind(deep/16%3))
			d := &diver{r: r, h: h, deep: deep, what: what}
			f := spawnAttr(t, s, func(d *diver) {
				d.ok = act(d.deep, d.what, d.r, d.h)
			}, d, sched.Attr{StackSize: 2 << 10})
			answered := make(chan bool, 1)
			time.AfterFunc(200*time.Microsecond, func() {
				if what == 2 {
					r.TrySend(2)
				} else {
					r.TryRecv()
				}
				answered <- true
			})
			var err error
			lwptest.Within(t, "Join", func() { err = f.Join() })
			<-answered
			fault := (*lwp.Fault)(nil)
			switch {
			case err == nil && d.ok:
				fine++
			case errors.As(err, &fault) && fault.Reason == lwp.StackOverflow:
				overflows++
			default:
				t.Fatalf("call %d at depth %d: %v, ok %v", what, deep, err, d.ok)
			}
			r.Free()
		}
	}
	t.Logf("%d overflows, %d went well", overflows, fine)
	if overflows == 0 || fine == 0 {
		t.Errorf("%d overflows, %d went well", overflows, fine)
	}
	run(t, s, func(d *diver) {
		var q query
		d.ok = d.h.Call(&q) == nil && q.out == 1
	}, &diver{h: h})
}

// TestOverflowLosesNoWakeUp has a fiber whose stack may run out send and receive
// where somebody waits for that: he goes on if it happened.
func TestOverflowLosesNoWakeUp(t *testing.T) {
	s := begin(t, 1)
	type diver struct {
		r          *lwp.Ring[uint64]
		deep, what int
		ok         bool
	}
	overflows, fine := 0, 0
	for what := range 2 {
		for deep := 0; deep < 1<<11; deep += 16 << (deep >> 9) {
			r := newRing(t, 1, lwp.RingKind(deep/16%3))
			full := uint64(0)
			if what == 1 {
				full = 1
				want(t, "TrySend", r.TrySend(1), nil)
			}
			over := make(chan error, 1)
			go func() {
				err := error(nil)
				if what == 1 {
					err = r.Send(2)
				} else {
					_, err = r.Recv()
				}
				over <- err
			}()
			time.Sleep(100 * time.Microsecond) // most often it waits by then
			d := &diver{r: r, deep: deep, what: what}
			f := spawnAttr(t, s, func(d *diver) { d.ok = passes(d.deep, d.what, d.r) }, d, sched.Attr{StackSize: 2 << 10})
			err := f.Join()
			fault := (*lwp.Fault)(nil)
			switch {
			case err == nil && d.ok:
				fine++
			case errors.As(err, &fault) && fault.Reason == lwp.StackOverflow:
				overflows++
			default:
				t.Fatalf("at depth %d: %v, ok %v", deep, err, d.ok)
			}
			gone := false
			lwptest.Eventually(t, "the other side", func() bool {
				select {
				case err := <-over:
					want(t, "the other side", err, nil)
					gone = true
				default:
				}
				return gone || r.Len() == int(full) && err != nil
			})
			r.Close()
			if !gone {
				<-over
			}
			r.Free()
		}
	}
	if overflows == 0 || fine == 0 {
		t.Errorf("%d overflows, %d went well", overflows, fine)
	}
}

//go:noinline
func passes(deep, what int, r *lwp.Ring[uint64]) bool {
	if deep >= 16 {
		var b [2]uint64
		ok := passes(deep-64, what, r)
		b[deep&1]++
		return ok && b[0]+b[1] == 1
	}
	if what == 0 {
		return r.TrySend(1) == nil
	}
	v, err := r.TryRecv()
	return err == nil && v == 1
}

// act makes a call with about deep bytes of the stack in use.
//
//go:noinline
func act(deep, what int, r *lwp.Ring[uint64], h *lwp.Handler[query]) bool {
	if deep >= 16 {
		var b [2]uint64
		ok := act(deep-64, what, r, h)
		b[deep&1]++
		return ok && b[0]+b[1] == 1
	}
	switch what {
	case 0:
		return r.Send(1) == nil
	case 1:
		r.TrySend(1)
		err := r.SendFor(2, time.Millisecond)
		return err == nil || err == lwp.ErrDeadline
	case 2:
		_, err := r.RecvFor(time.Millisecond)
		return err == nil || err == lwp.ErrDeadline
	case 3:
		var q query
		return h.Call(&q) == nil && q.out == 1
	}
	var q query
	return h.CallFor(&q, time.Minute) == nil && q.out == 1
}

// TestJoinContextOfFibers: ended, running, faulted, given up.
func TestJoinContextOfFibers(t *testing.T) {
	s := begin(t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	s.Hold()
	f := spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	want(t, "JoinContext", f.JoinContext(ctx), context.DeadlineExceeded)
	want(t, "WaitContext", s.WaitContext(ctx), context.DeadlineExceeded)
	tasks := lwptest.NumTasks()
	var wg sync.WaitGroup
	var one, others atomic.Int64
	const n = 300
	for range n {
		wg.Go(func() {
			switch err := f.JoinContext(t.Context()); err {
			case nil:
				one.Add(1)
			case sched.ErrJoined:
				others.Add(1)
			default:
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := s.WaitContext(t.Context()); err != nil {
				t.Error("WaitContext: ", err)
			}
		})
	}
	time.Sleep(5 * time.Millisecond)
	if now := lwptest.NumTasks(); now > tasks+20 && !lwptest.Emulated() {
		t.Errorf("%d threads, and %d with %d goroutines that wait", tasks, now, 2*n)
	}
	want(t, "Unpark", f.Unpark(), nil)
	lwptest.Within(t, "the goroutines", wg.Wait)
	if one.Load() != 1 || others.Load() != n-1 {
		t.Errorf("%d have joined, %d were told that another has", one.Load(), others.Load())
	}
	s.Release()
	f = spawn(t, s, func(*int) { *nowhere = 1 }, nil)
	if fault := new(lwp.Fault); !errors.As(f.JoinContext(t.Context()), &fault) || fault.Reason != lwp.NilDereference {
		t.Error("JoinContext of a fiber that faulted: ", fault)
	}
	f = spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	want(t, "JoinContext of a deadlock", f.JoinContext(t.Context()), sched.ErrDeadlock)
	want(t, "Unpark", f.Unpark(), nil)
	want(t, "JoinContext", f.JoinContext(t.Context()), nil)
	want(t, "JoinContext of none", sched.Fiber{}.JoinContext(t.Context()), sched.ErrNoFiber)
	type x struct {
		f   sched.Fiber
		s   *sched.Scheduler
		ctx context.Context
		err [2]note
	}
	a := &x{f: f, s: s, ctx: t.Context()}
	run(t, s, func(a *x) {
		a.err = [2]note{noteOf(a.f.JoinContext(a.ctx)), noteOf(a.s.WaitContext(a.ctx))}
	}, a)
	want(t, "JoinContext on a fiber", a.err[0].err(), sched.ErrHosted)
	want(t, "WaitContext on a fiber", a.err[1].err(), sched.ErrHosted)
}

// TestJoinChanInASelect: nothing comes before the end, then what Join returns.
func TestJoinChanInASelect(t *testing.T) {
	s := begin(t, 1)
	s.Hold()
	f := spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	c := f.JoinChan()
	select {
	case err := <-c:
		t.Fatalf("a parked fiber was joined: %v", err)
	case <-time.After(5 * time.Millisecond):
	}
	want(t, "Unpark", f.Unpark(), nil)
	receives := func(what string, c <-chan error) (err error) {
		within(t, what, func() error { err = <-c; return nil })
		return err
	}
	want(t, "JoinChan", receives("JoinChan", c), nil)
	want(t, "JoinChan of one that was joined", receives("JoinChan again", f.JoinChan()), sched.ErrJoined)
	f = spawn(t, s, func(*int) { *nowhere = 1 }, nil)
	if fault := new(lwp.Fault); !errors.As(receives("JoinChan of a fault", f.JoinChan()), &fault) {
		t.Error("JoinChan of a fiber that faulted says nothing")
	}
	s.Release()
	type x struct {
		f     sched.Fiber
		isNil bool
	}
	a := &x{f: f}
	run(t, s, func(a *x) { a.isNil = a.f.JoinChan() == nil }, a)
	if !a.isNil {
		t.Error("JoinChan on a fiber returns a channel")
	}
}
