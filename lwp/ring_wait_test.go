package lwp_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// TestRingDeadlines: they are kept where nothing happens, and what is sent at the
// same moment is neither lost nor doubled.
func TestRingDeadlines(t *testing.T) {
	begin(t)
	for _, k := range ringKinds {
		r := newRing[uint64](t, 1, k.kind)
		begun := time.Now()
		_, err := r.RecvFor(10 * time.Millisecond)
		want(t, "RecvFor", err, lwp.ErrDeadline)
		want(t, "Send", r.Send(1), nil)
		want(t, "SendFor", r.SendFor(2, 10*time.Millisecond), lwp.ErrDeadline)
		if d := time.Since(begun); d < 20*time.Millisecond {
			t.Errorf("%s: two waits of 10ms took %v", k.name, d)
		}
		_, err = r.RecvUntil(futex.At(time.Now().Add(time.Minute)))
		want(t, "RecvUntil", err, nil)
		_, err = r.RecvUntil(futex.At(time.Now().Add(10 * time.Millisecond)))
		want(t, "RecvUntil", err, lwp.ErrDeadline)

		type race struct {
			r    *lwp.Ring[uint64]
			n    int
			sent int
		}
		x := &race{r: r, n: lwptest.Soak(300, 100)}
		th := start(t, func(x *race) {
			for i := range x.n {
				lwp.Sleep(time.Duration(i%40) * time.Microsecond)
				if x.r.SendFor(uint64(i), 30*time.Microsecond) == nil {
					x.sent++
				}
			}
			x.r.Close()
		}, x)
		got, last := 0, -1
		for {
			v, err := r.RecvFor(50 * time.Microsecond)
			if err == lwp.ErrRingClosed {
				break
			}
			if err == nil {
				if got++; int(v) <= last {
					t.Errorf("%s: %d after %d", k.name, v, last)
				}
				last = int(v)
			}
		}
		join(t, th)
		if got != x.sent || got == 0 {
			t.Errorf("%s: %d sent, %d received", k.name, x.sent, got)
		}
	}
}

// TestRingCloseSettlesEverySend closes while both ends are at work: what was sent
// is what is received.
func TestRingCloseSettlesEverySend(t *testing.T) {
	begin(t)
	type end struct {
		r *lwp.Ring[uint64]
		n int
	}
	for _, k := range ringKinds {
		for round := range lwptest.Soak(150, 40) {
			r := newRing[uint64](t, 1<<(round%4), k.kind)
			s, v := &end{r: r}, &end{r: r}
			send := start(t, func(e *end) {
				for e.r.Send(uint64(e.n)) == nil {
					e.n++
				}
			}, s)
			recv := start(t, func(e *end) {
				for {
					v, err := e.r.Recv()
					if err != nil {
						return
					}
					if v != uint64(e.n) {
						lwp.Abort("out of order")
					}
					e.n++
				}
			}, v)
			time.Sleep(time.Duration(round%7) * 10 * time.Microsecond)
			want(t, "Close", r.Close(), nil)
			join(t, send)
			join(t, recv)
			if s.n != v.n || r.Len() != 0 {
				t.Fatalf("%s, round %d: %d sent, %d received, Len %d", k.name, round, s.n, v.n, r.Len())
			}
			want(t, "Free", r.Free(), nil)
		}
	}
}

// TestRingContexts cancels before, during and after the wait.
func TestRingContexts(t *testing.T) {
	begin(t)
	for _, k := range ringKinds {
		r := newRing[uint64](t, 1, k.kind)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.RecvContext(over)
		want(t, "RecvContext", err, context.Canceled)
		want(t, "SendContext", r.SendContext(over, 1), context.Canceled)
		soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err = r.RecvContext(soon)
		want(t, "RecvContext", err, context.DeadlineExceeded)
		cancel()
		want(t, "SendContext", r.SendContext(t.Context(), 7), nil)
		soon, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
		want(t, "SendContext", r.SendContext(soon, 8), context.DeadlineExceeded)
		cancel()

		// A thread sends while contexts end.
		n := uint64(lwptest.Soak(150, 40))
		type sender struct {
			r *lwp.Ring[uint64]
			n uint64
		}
		th := start(t, func(s *sender) {
			for i := range s.n {
				lwp.Sleep(time.Duration(i%50) * time.Microsecond)
				s.r.Send(8 + i)
			}
			s.r.Close()
		}, &sender{r, n})
		next, ended := uint64(7), 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Microsecond)
			v, err := r.RecvContext(ctx)
			cancel()
			if err == lwp.ErrRingClosed {
				break
			}
			if err != nil {
				ended++
				continue
			}
			if v != next {
				t.Fatalf("%s: %d, want %d", k.name, v, next)
			}
			next++
		}
		join(t, th)
		if next != 8+n {
			t.Errorf("%s: the last was %d, want %d", k.name, next-1, 7+n)
		}
	}
}

// TestRingWakeIsNotLostToAContext: one is woken for a value and its context ends
// before it runs. Who waits behind it gets the value, unless it does.
func TestRingWakeIsNotLostToAContext(t *testing.T) {
	begin(t)
	r := newRing[uint64](t, 4, lwp.MPMC)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range lwptest.Soak(100, 30) {
		ctx, cancel := context.WithCancel(t.Context())
		var got atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.RecvContext(ctx); err == nil {
				got.Add(1)
			}
		})
		lwptest.Eventually(t, "the first to wait", func() bool { return r.Waiting() == 1 })
		wg.Go(func() {
			if _, err := r.RecvContext(t.Context()); err == nil {
				got.Add(1)
			}
		})
		lwptest.Eventually(t, "the second to wait", func() bool { return r.Waiting() == 2 })
		r.Send(1)
		cancel()
		lwptest.Eventually(t, "the value to be received", func() bool { return got.Load() == 1 })
		if r.Waiting() == 1 {
			r.Send(2) // for the second, if the first was not told before its value
		}
		lwptest.Within(t, "the goroutines", wg.Wait)
		for r.Len() > 0 {
			r.TryRecv()
		}
	}
}

// TestGoroutinesWaitForARingWithoutThreads: with a context.
func TestGoroutinesWaitForARingWithoutThreads(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "tasks of its own in /proc")
	r := newRing[uint64](t, 4, lwp.MPMC)
	const n = 500
	var got atomic.Int64
	var wg sync.WaitGroup
	before := lwptest.NumTasks()
	for range n {
		wg.Go(func() {
			if _, err := r.RecvContext(context.Background()); err == nil {
				got.Add(1)
			}
		})
	}
	lwptest.Eventually(t, "all to wait", func() bool { return r.Waiting() == n })
	if now := lwptest.NumTasks(); now > before+20 {
		t.Errorf("%d threads, and %d with %d goroutines that wait", before, now, n)
	}
	th := start(t, func(r *lwp.Ring[uint64]) {
		for i := range uint64(n) {
			r.Send(i)
		}
	}, r)
	join(t, th)
	lwptest.Within(t, "the goroutines", wg.Wait)
	if got.Load() != n {
		t.Errorf("%d of %d received", got.Load(), n)
	}
}

func TestRingEndsTellThreadsWhatIsForGoroutines(t *testing.T) {
	begin(t)
	type call struct {
		r    *lwp.Ring[uint64]
		errs [3]bool
		ctx  context.Context
	}
	c := &call{r: newRing[uint64](t, 4, lwp.SPSC), ctx: t.Context()}
	lwptest.OnThread(t, func(c *call) {
		_, err := lwp.NewRing[int](1, lwp.SPSC)
		c.errs[0] = err == lwp.ErrHosted
		c.errs[1] = c.r.SendContext(c.ctx, 1) == lwp.ErrHosted
		_, err = c.r.RecvContext(c.ctx)
		c.errs[2] = err == lwp.ErrHosted
	}, c)
	if c.errs != [3]bool{true, true, true} {
		t.Error(c.errs)
	}
}
