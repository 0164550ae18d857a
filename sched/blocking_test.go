package sched_test

import (
	"sync/atomic"
	"testing"

	"lwprt/futex"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

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
