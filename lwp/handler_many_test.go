package lwp_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// TestHandlerLimitHolds: never more at a time, and everybody's turn comes.
func TestHandlerLimitHolds(t *testing.T) {
	begin(t)
	var now, most atomic.Int64
	h := newHandler(t, func(q *query) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(50 * time.Microsecond)
		now.Add(-1)
		q.out = 1
	}, lwp.HandlerConfig{Limit: 3})
	callers := make([]asking, 12)
	var threads []lwp.Thread
	var wg sync.WaitGroup
	for i := range callers {
		callers[i] = asking{h: h, n: lwptest.Soak(30, 10)}
		if i%3 == 0 {
			wg.Go(func() { callHandler(&callers[i]) })
		} else {
			threads = append(threads, start(t, callHandler, &callers[i]))
		}
	}
	for _, th := range threads {
		join(t, th)
	}
	lwptest.Within(t, "the goroutines", wg.Wait)
	for i := range callers {
		if c := &callers[i]; c.sum != c.n || c.errs.Load() != 0 {
			t.Errorf("caller %d: %d of %d", i, c.sum, c.n)
		}
	}
	if most.Load() != 3 {
		t.Errorf("%d at a time, with a limit of 3", most.Load())
	}
}

// TestHandlerCloseSettlesEveryCall closes while threads call: each call has run
// to its end or was refused.
func TestHandlerCloseSettlesEveryCall(t *testing.T) {
	begin(t)
	for round := range lwptest.Soak(50, 15) {
		var ran atomic.Int64
		h := newHandler(t, func(q *query) {
			if q.in%4 == 0 {
				time.Sleep(20 * time.Microsecond)
			}
			ran.Add(1)
		}, lwp.HandlerConfig{Limit: round % 3})
		callers := make([]asking, 4)
		var threads []lwp.Thread
		var wg sync.WaitGroup
		again := func(c *asking) {
			for {
				q := query{in: c.n}
				if err := c.h.Call(&q); err != nil {
					if err != lwp.ErrHandlerClosed {
						c.errs.Add(1)
					}
					return
				}
				c.n++
			}
		}
		for i := range callers {
			callers[i].h = h
			if i == 0 {
				wg.Go(func() { again(&callers[i]) })
			} else {
				threads = append(threads, start(t, again, &callers[i]))
			}
		}
		time.Sleep(time.Duration(round%10) * 30 * time.Microsecond)
		lwptest.Within(t, "Close", func() { want(t, "Close", h.Close(), nil) })
		after := ran.Load()
		for _, th := range threads {
			join(t, th)
		}
		wg.Wait()
		sum := int64(0)
		for i := range callers {
			sum += int64(callers[i].n) + 100_000*callers[i].errs.Load()
		}
		if sum != after || ran.Load() != after {
			t.Fatalf("round %d: %d ran by the end of Close, %d in all, %d calls went well", round, after, ran.Load(), sum)
		}
	}
}

// TestHandlerFromHooks: a thread calls one as it exits.
func TestHandlerFromHooks(t *testing.T) {
	begin(t)
	var ran atomic.Int64
	h := newHandler(t, func(q *query) { ran.Add(int64(q.in)) }, lwp.HandlerConfig{})
	c := &asking{h: h}
	for _, end := range []func(*asking){
		func(*asking) {},
		func(*asking) { lwp.Exit() },
		func(*asking) { *nowhere() = 1 },
	} {
		type leaver struct {
			asking
			end func(*asking)
		}
		th := start(t, func(l *leaver) {
			lwp.OnExit(func(l *leaver) {
				q := query{in: 1}
				if l.h.Call(&q) != nil {
					l.errs.Add(1)
				}
			}, l)
			l.end(&l.asking)
		}, &leaver{asking: asking{h: h}, end: end})
		lwptest.Within(t, "the thread", func() { th.Join() })
	}
	if ran.Load() != 3 || c.errs.Load() != 0 {
		t.Errorf("%d of 3 hooks have called", ran.Load())
	}
}

// TestHandlerCallsHandler: a body calls handlers, starts threads that do, and
// joins them.
func TestHandlerCallsHandler(t *testing.T) {
	begin(t)
	var h *lwp.Handler[query]
	h = newHandler(t, func(q *query) {
		if q.in == 0 {
			q.out = 1
			return
		}
		own, theirs := query{in: q.in - 1}, &asking{h: h, n: 1}
		err := h.Call(&own)
		th, startErr := lwp.Start(callHandler, theirs)
		if err != nil || startErr != nil || th.Join() != nil {
			return
		}
		q.out = own.out + theirs.sum
	}, lwp.HandlerConfig{})
	type asker struct {
		h *lwp.Handler[query]
		q query
	}
	a := &asker{h: h, q: query{in: 5}}
	lwptest.OnThread(t, func(a *asker) { a.h.Call(&a.q) }, a)
	if a.q.out != 6 {
		t.Errorf("%d, want 6", a.q.out)
	}
}

// TestManyCallersTieUpFewThreads: threads that wait in handlers whose functions
// block cost the runtime no thread each.
func TestManyCallersTieUpFewThreads(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "tasks of its own in /proc")
	open := make(chan struct{})
	var in atomic.Int64
	h := newHandler(t, func(q *query) {
		in.Add(1)
		<-open
	}, lwp.HandlerConfig{})
	n := lwptest.Count(200, 50)
	before := lwptest.NumTasks()
	callers := make([]asking, n)
	var threads []lwp.Thread
	for i := range callers {
		callers[i] = asking{h: h, n: 1}
		threads = append(threads, startAttr(t, callHandler, &callers[i], lwp.Attr{StackSize: 8 << 10}))
	}
	lwptest.Eventually(t, "all to call", func() bool { return in.Load() == int64(n) })
	if now := lwptest.NumTasks() - n; now > before+10 {
		t.Errorf("%d threads of Go's, and %d with %d calls", before, now, n)
	}
	close(open)
	for _, th := range threads {
		join(t, th)
	}
}

// TestIdleHandlersCostNothing measures the CPU time of a process of which a
// thread waits in a handler.
func TestIdleHandlersCostNothing(t *testing.T) {
	lwptest.NotEmulated(t, "CPU times")
	if lwptest.MustPass(t, nil) { // where no other test's goroutines run
		return
	}
	begin(t)
	open := make(chan struct{})
	h := newHandler(t, func(q *query) {
		if q.in == 1 {
			<-open
		}
	}, lwp.HandlerConfig{})
	c := &asking{h: h, n: 2}
	th := start(t, callHandler, c)
	time.Sleep(100 * time.Millisecond)
	runtime.GC()
	var a, b syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &a)
	time.Sleep(500 * time.Millisecond)
	syscall.Getrusage(syscall.RUSAGE_SELF, &b)
	used := time.Duration(b.Utime.Nano() + b.Stime.Nano() - a.Utime.Nano() - a.Stime.Nano())
	if used > 20*time.Millisecond {
		t.Errorf("%v of CPU time in half a second", used)
	}
	close(open)
	join(t, th)
}

// TestProcessHasNoHandlers: a child has no goroutines.
func TestProcessHasNoHandlers(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "fork of a process with threads")
	h := newHandler(t, func(q *query) {}, lwp.HandlerConfig{})
	p, err := lwp.StartProcess(func(h *lwp.Handler[query]) int {
		var q query
		if h.Call(&q) == lwp.ErrHosted && h.CallFor(&q, time.Second) == lwp.ErrHosted {
			return 7
		}
		return 1
	}, h, lwp.ProcessAttr{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Wait()
	if err != nil || s.ExitCode() != 7 {
		t.Errorf("%v, %v", s, err)
	}
}
