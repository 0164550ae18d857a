package sched_test

import (
	"testing"

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
