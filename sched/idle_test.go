package sched_test

import (
	"sync/atomic"
	"testing"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// TestLateWakeLeavesTheIdleListWhole: a worker that is taken off the list of
// idle ones while it takes its second look, finds something, works, and is idle
// again by the time that the wake comes.
func TestLateWakeLeavesTheIdleListWhole(t *testing.T) {
	s := begin(t, 8)
	s.Delay()
	s.Hold()
	defer s.Release()
	type chain struct {
		n   int
		ran atomic.Int64
	}
	c := &chain{n: 20}
	for range lwptest.Count(2000, 300) {
		f := spawn(t, s, func(c *chain) {
			for range c.n {
				if f, err := sched.Go(count, &c.ran); err == nil {
					sched.Yield()
					f.Join()
				}
			}
		}, c)
		if f.Join(); !s.Consistent() {
			t.Fatal("the list of idle workers is damaged")
		}
	}
}

// A rally is two fibers that wake each other in turn.
type rally struct {
	n     int
	sides [2]sched.Fiber
	turn  atomic.Uint32
}

func (r *rally) play(side uint32) {
	for range r.n {
		for r.turn.Load() != side {
			sched.Park("the other side")
		}
		r.turn.Store(1 - side)
		r.sides[1-side].Unpark() // it has ended, after the last turn
	}
}

// TestPinnedRallyIsNoDeadlock: what is on its way to a worker that is just
// about to be idle is not there when the other worker is idle too.
func TestPinnedRallyIsNoDeadlock(t *testing.T) {
	for _, wide := range []bool{false, true} {
		s := begin(t, 2)
		if wide {
			s.Widen(false)
		}
		r := &rally{n: lwptest.Count(20_000, 2000)}
		r.turn.Store(2)
		s.Hold()
		r.sides[0] = spawnAttr(t, s, func(r *rally) { r.play(0) }, r, sched.Attr{Worker: 1})
		r.sides[1] = spawnAttr(t, s, func(r *rally) { r.play(1) }, r, sched.Attr{Worker: 2})
		r.turn.Store(0)
		want(t, "Unpark", r.sides[0].Unpark(), nil)
		s.Release()
		for _, f := range r.sides {
			within(t, "Join", f.Join)
		}
	}
}
