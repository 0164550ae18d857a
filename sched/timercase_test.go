package sched_test

import (
	"testing"
	"time"

	"lwprt/sched"
)

// TestTimersAsCasesOfASelect: what comes first is taken, once; what was not
// taken stays; a Timer that is set meanwhile counts.
func TestTimersAsCasesOfASelect(t *testing.T) {
	everywhere(t, func(x *trial) {
		fail := func(n int, bad bool) {
			if bad && x.failed == 0 {
				x.failed = n
			}
		}
		const d = 2 * time.Millisecond
		start := clock()
		x.t.Reset(d)
		i, err := sched.Select(x.c.RecvCase(&x.n), x.t.Case())
		fail(1, i != 1 || err != nil || clock()-start < d)
		i, err = sched.SelectWithin(sched.For(d), x.t.Case(), x.c.RecvCase(&x.n))
		fail(2, i != -1 || err != sched.ErrTimeout) // it was taken
		x.t.Reset(time.Hour)
		x.k.Reset(d)
		i, _ = sched.Select(x.t.Case(), x.k.Case(), x.c.RecvCase(&x.n))
		fail(3, i != 1)
		i, _ = sched.Select(x.t.Case(), x.k.Case())
		fail(4, i != 1)
		x.k.Stop()
		fail(5, !x.t.Stop())
		x.t.Reset(0)
		_, err = sched.TrySelect(x.t.Case())
		fail(6, err != nil)
		_, err = sched.TrySelect(x.t.Case())
		fail(7, err != sched.ErrNotReady)
		x.t2.Reset(d)
		x.t.Reset(2 * d)
		start = clock()
		first, _ := sched.Select(x.t.Case(), x.t2.Case())
		fail(8, first != 1 && clock()-start < d) // late, it finds both
		i, _ = sched.Select(x.t.Case(), x.t2.Case())
		fail(9, i != 1-first)
		x.sem.Release(1) // the other sets it
		i, _ = sched.Select(x.t.Case(), x.c.RecvCase(&x.n))
		fail(10, i != 0)
	}, func() *trial {
		x := new(trial)
		go func() {
			x.sem.Acquire(1)
			time.Sleep(time.Millisecond)
			x.t.Reset(time.Hour)
			time.Sleep(time.Millisecond)
			x.t.Reset(time.Millisecond)
		}()
		return x
	}, func(t *testing.T, x *trial) {
		if x.failed != 0 {
			t.Errorf("step %d", x.failed)
		}
	})
}
