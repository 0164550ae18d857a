package sched_test

import (
	"sync/atomic"
	"testing"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// TestPinnedPairStarvesNobody: two pinned fibers that wake each other are
// always ready, and nobody else can run those in their worker's queue.
func TestPinnedPairStarvesNobody(t *testing.T) {
	s := begin(t, 1)
	type pair struct {
		n     int
		sides [2]sched.Fiber
		ran   atomic.Int64
		late  int64
	}
	p := &pair{n: lwptest.Count(200_000, 20_000)}
	run(t, s, func(p *pair) {
		p.sides[0], _ = sched.GoAttr(func(p *pair) { pairPlay(p.n, &p.sides[1], &p.ran, &p.late) }, p, sched.Attr{Worker: 1})
		p.sides[1], _ = sched.GoAttr(func(p *pair) { pairPlay(p.n, &p.sides[0], &p.ran, &p.late) }, p, sched.Attr{Worker: 1})
		sched.Yield()
		sched.Yield() // they park
		f, _ := sched.Go(count, &p.ran)
		p.sides[0].Unpark()
		f.Detach()
		p.sides[0].Join()
		p.sides[1].Unpark()
		p.sides[1].Join()
	}, p)
	if p.ran.Load() != 1 || p.late > 10 {
		t.Errorf("the other ran %d times, after %d turns", p.ran.Load(), p.late)
	}
}

func pairPlay(n int, other *sched.Fiber, ran *atomic.Int64, late *int64) {
	for range n {
		sched.Park("the other")
		other.Unpark()
		if ran.Load() == 0 {
			*late++
		}
	}
}
