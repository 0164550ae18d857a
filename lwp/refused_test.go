package lwp_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// TestJoinMeetsRefusedStart joins and detaches what Threads lists, among it
// threads whose setup is about to fail. Whoever is first must take back the
// thread's memory, and nobody a second time; nor may anyone wait for ever.
func TestJoinMeetsRefusedStart(t *testing.T) {
	begin(t)
	var over atomic.Bool
	var starters, takers sync.WaitGroup
	var taken atomic.Int64
	for i := range 2 {
		takers.Go(func() {
			for !over.Load() {
				for _, th := range lwp.Threads() {
					var err error
					if i == 0 {
						err = th.Join()
					} else {
						err = th.Detach()
					}
					if err == nil {
						taken.Add(1)
					}
				}
			}
		})
	}
	for range 2 {
		starters.Go(func() {
			for range lwptest.Count(20_000, 3000) {
				_, err := lwp.StartAttr(come, new(stage), lwp.Attr{Enter: []int{-1}})
				checkRefusal(t, "no namespace", lwp.Thread{}, err, "setns", unix.EBADF)
			}
		})
	}
	lwptest.Within(t, "the refusals", starters.Wait)
	over.Store(true)
	lwptest.Within(t, "those who join", takers.Wait)
	t.Logf("%d taken", taken.Load())
}
