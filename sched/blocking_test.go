package sched_test

import (
	"sync/atomic"
	"testing"

	"lwprt/futex"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// TestHelperThatDiesIsReplaced: with all of them busy, a call waits for one, and
// must not wait for the next when that dies.
func TestHelperThatDiesIsReplaced(t *testing.T) {
	s := begin(t, 1)
	type caller struct {
		begun *uint32
		dies  bool
		over  uint32
	}
	const helpers = 256
	begun := new(uint32)
	calls := make([]caller, helpers+1)
	var fs []sched.Fiber
	start := func(c *caller) {
		c.begun = begun
		fs = append(fs, spawn(t, s, func(c *caller) {
			sched.Blocking(func(c *caller) {
				atomic.AddUint32(c.begun, 1)
				for atomic.LoadUint32(&c.over) == 0 {
					futex.Wait(&c.over, 0)
				}
				if c.dies {
					*nowhere = 1
				}
			}, c)
		}, c))
	}
	for i := range helpers {
		calls[i].dies = i == 77
		start(&calls[i])
	}
	lwptest.Eventually(t, "all helpers to be busy", func() bool { return atomic.LoadUint32(begun) == helpers })
	start(&calls[helpers])
	end := func(c *caller) {
		atomic.StoreUint32(&c.over, 1)
		futex.Wake(&c.over, futex.All)
	}
	end(&calls[77])
	lwptest.Eventually(t, "the last call to begin", func() bool { return atomic.LoadUint32(begun) == helpers+1 })
	for i := range calls {
		end(&calls[i])
	}
	for _, f := range fs {
		within(t, "Join", f.Join)
	}
}

// TestBlockingCallsMeet has calls wait for each other: one that were left
// without a thread, because of threads that count as idle and are not, would hang.
func TestBlockingCallsMeet(t *testing.T) {
	s := begin(t, 2)
	type pair struct {
		n      int
		calls  uint32
		failed note
	}
	meet := func(p *pair) {
		for range p.n {
			err := sched.Blocking(func(p *pair) {
				n := atomic.AddUint32(&p.calls, 1)
				if n%2 == 0 {
					futex.Wake(&p.calls, futex.All)
					return
				}
				for atomic.LoadUint32(&p.calls) == n {
					futex.Wait(&p.calls, n)
				}
			}, p)
			p.failed |= noteOf(err)
		}
	}
	for _, n := range []int{2, 5, 10, 20, 40} { // those who have come back to wait do not do for more
		pairs := make([]pair, n)
		var fs []sched.Fiber
		for i := range pairs {
			pairs[i].n = lwptest.Count(4000, 400) / n
			for range 2 {
				fs = append(fs, spawn(t, s, meet, &pairs[i]))
			}
		}
		for _, f := range fs {
			within(t, "Join", f.Join)
		}
		for i := range pairs {
			if p := &pairs[i]; p.failed != 0 || int(p.calls) != 2*p.n {
				t.Errorf("%d calls, %v", p.calls, p.failed.err())
			}
		}
	}
}
