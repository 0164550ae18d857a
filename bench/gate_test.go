package bench

import (
	"sync/atomic"
	"testing"

	"lwprt/futex"
	"lwprt/lwp"
)

// A gate holds threads back until all have come to it and the clock is reset.
type gate struct{ came, open uint32 }

// pass announces the calling thread, and waits until the gate is open.
func (g *gate) pass() {
	atomic.AddUint32(&g.came, 1)
	futex.Wake(&g.came, 1)
	for atomic.LoadUint32(&g.open) == 0 {
		futex.Wait(&g.open, 0)
	}
}

// wait waits until n have come.
func (g *gate) wait(n uint32) {
	for v := atomic.LoadUint32(&g.came); v < n; v = atomic.LoadUint32(&g.came) {
		futex.Wait(&g.came, v)
	}
}

func (g *gate) release() {
	atomic.StoreUint32(&g.open, 1)
	futex.Wake(&g.open, futex.All)
}

// A job is n operations that a thread does, and how many it has seen succeed.
type job struct {
	gate
	n, good int
}

// onThread is the body of a row whose operations are done on a thread by fn,
// which passes the gate first. The time includes one wake and one join.
func onThread(b *testing.B, fn func(*job)) error {
	j := job{n: b.N}
	t, err := lwp.Start(fn, &j)
	if err != nil {
		return err
	}
	j.wait(1)
	b.ResetTimer()
	j.release()
	err = t.Join()
	b.StopTimer()
	if err != nil {
		return err
	}
	return did(j.good, j.n)
}
