package sched_test

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A crowd is fibers that park until they are let go.
type crowd struct {
	n    int
	f    []sched.Fiber
	in   atomic.Int64
	gone atomic.Int64
	err  note
}

func newCrowd(n int) *crowd {
	c := &crowd{n: n, f: make([]sched.Fiber, n)}
	for i := range c.f {
		c.f[i] = sched.Fiber{} // touched, so that it does not count
	}
	return c
}

func (c *crowd) gather() {
	for i := range c.n {
		var err error
		if c.f[i], err = sched.Go((*crowd).stay, c); err != nil {
			c.err = noteOf(err)
			return
		}
	}
	for int(c.in.Load()) < c.n {
		sched.Yield()
	}
}

func (c *crowd) stay() {
	c.in.Add(1)
	sched.Park("the end")
	c.gone.Add(1)
}

func (c *crowd) leave() {
	for _, f := range c.f {
		c.err |= noteOf(f.Unpark())
	}
	for _, f := range c.f {
		c.err |= noteOf(f.Join())
	}
}

// TestParkedFiberTakesLittle: a stack of 2 KiB and not much more, all told.
// LWPRT_SCHED_PARKED says how many there are to be; ten million take 22 GB.
func TestParkedFiberTakesLittle(t *testing.T) {
	lwptest.NotEmulated(t, "resident memory")
	s := beginWith(t, sched.Config{Workers: 1, StackSize: sched.MinStackSize})
	s.Hold()
	n := lwptest.Count(200_000, 50_000)
	if many, err := strconv.Atoi(os.Getenv("LWPRT_SCHED_PARKED")); err == nil && many > 0 {
		n = many
	}
	c := newCrowd(n)
	before := lwptest.Resident()
	run(t, s, (*crowd).gather, c)
	each := float64(lwptest.Resident()-before) / float64(c.n)
	run(t, s, (*crowd).leave, c)
	s.Release()
	if c.err != 0 || c.gone.Load() != int64(c.n) {
		t.Fatalf("%d of %d left, %v", c.gone.Load(), c.n, c.err.err())
	}
	t.Logf("%.0f bytes a fiber", each)
	const odds = 4 << 20 // what Go needs meanwhile, and the rest of the last huge page
	if each < sched.MinStackSize/2 || each > 2200+float64(odds)/float64(c.n) {
		t.Errorf("a parked fiber takes %.0f bytes", each)
	}
}

// TestMemoryOfABurstGoesBack: without a call, when the workers have been idle
// for a while; what is used again then is not lost.
func TestMemoryOfABurstGoesBack(t *testing.T) {
	lwptest.NotEmulated(t, "resident memory")
	s := beginWith(t, sched.Config{Workers: 2, StackSize: sched.MinStackSize})
	for range lwptest.Count(2, 1) { // each waits a second
		c := newCrowd(50_000)
		before := lwptest.Resident()
		s.Hold()
		run(t, s, (*crowd).gather, c)
		s.Release()
		if grown := lwptest.Resident() - before; grown < c.n*sched.MinStackSize/2 {
			t.Errorf("%d fibers took %d bytes", c.n, grown)
		}
		run(t, s, (*crowd).leave, c)
		if c.err != 0 {
			t.Fatal(c.err.err())
		}
		lwptest.Eventually(t, "the memory to go back", func() bool {
			time.Sleep(10 * time.Millisecond)
			return lwptest.Resident()-before < c.n*sched.MinStackSize/10
		})
	}
}
