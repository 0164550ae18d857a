package sched_test

import (
	"testing"

	"lwprt/futex"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// TestYieldToSelfLeavesTheQueueWhole: the caller is ready on its own worker,
// but not in the queue.
func TestYieldToSelfLeavesTheQueueWhole(t *testing.T) {
	s := begin(t, 1)
	fam := &family{n: 200}
	run(t, s, func(f *family) {
		for range f.n {
			a, _ := sched.Go(count, &f.ran)
			b, _ := sched.Go(count, &f.ran)
			if next, err := sched.YieldTo(sched.Current()); next || err != nil {
				f.err = 1
			}
			f.err |= noteOf(a.Join())
			f.err |= noteOf(b.Join())
		}
	}, fam)
	if fam.err != 0 || fam.ran.Load() != int64(2*fam.n) {
		t.Errorf("%d of %d ran, error %d", fam.ran.Load(), 2*fam.n, fam.err)
	}
}

// TestPinnedYieldToStays: a pinned fiber that yields to another is not for
// thieves either.
func TestPinnedYieldToStays(t *testing.T) {
	s := begin(t, 4)
	fam := &family{n: lwptest.Count(5000, 1000)}
	f := spawnAttr(t, s, func(f *family) {
		for range f.n {
			c, err := sched.Go(func(f *family) {
				for end := futex.Monotonic() + 20_000; futex.Monotonic() < end; {
				}
				f.ran.Add(1)
			}, f)
			if err == nil {
				_, err = sched.YieldTo(c)
			}
			if sched.OnWorker() != 2 {
				f.err2 = 1
			}
			if err == nil {
				err = c.Join()
			}
			f.err |= noteOf(err)
		}
	}, fam, sched.Attr{Worker: 2})
	within(t, "Join", f.Join)
	if fam.err != 0 || fam.err2 != 0 || fam.ran.Load() != int64(fam.n) {
		t.Errorf("%d ran, %v; on another worker: %d", fam.ran.Load(), fam.err.err(), fam.err2)
	}
}
