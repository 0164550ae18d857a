package sched

import (
	"math"
	"sync/atomic"
)

// A WaitGroup waits for a number of tasks to be done, of fibers, threads and
// goroutines. The zero WaitGroup counts none. It must not be copied after first
// use.
//
// It can lie in the frame of a fiber that returns from Wait, and then from its
// function. So the Add that makes the count 0 does so under the latch, which
// Wait takes before it returns. Those before it are not the last: while there is
// another to come, nobody returns from Wait, and a compare-and-swap, after which
// they do not touch the group, is enough.
type WaitGroup struct {
	_     noCopy
	n     int32  // 0 is left and reached under the latch
	round uint32 // odd while n is not 0; grows by one when that changes
	q     queue
}

// Add adds delta, which may be negative, to the count, and lets those go that
// wait if that makes it 0. It panics if the count would be negative or above
// math.MaxInt32. An Add from 0 must happen before the Wait that is to see it.
//
// Context: anywhere; it never waits.
// Ordering: a call that brings the count down happens before the return of the
// waits that its group ends.
func (g *WaitGroup) Add(delta int) {
	if n := atomic.LoadInt32(&g.n); n > 0 && int(n)+delta > 0 && int(n)+delta <= math.MaxInt32 &&
		atomic.CompareAndSwapInt32(&g.n, n, n+int32(delta)) {
		return
	}
	if !g.add(delta) {
		if delta < 0 {
			panic("sched: negative WaitGroup counter")
		}
		panic("sched: WaitGroup counter too large")
	}
}

// add is Add under the latch.
//
//go:nosplit // see latch
func (g *WaitGroup) add(delta int) bool {
	me, _ := here()
	me.needRoom()
	g.q.latch.lock()
	for {
		n := atomic.LoadInt32(&g.n)
		next := int(n) + delta
		if next < 0 || next > math.MaxInt32 {
			g.q.latch.unlock()
			return false
		}
		if !atomic.CompareAndSwapInt32(&g.n, n, int32(next)) {
			continue
		}
		var all *node
		if (n == 0) != (next == 0) {
			atomic.StoreUint32(&g.round, g.round+1)
			all = g.q.takeAll(me) // before a round there is nobody
		}
		g.q.latch.unlock()
		all.resumeAll(me)
		return true
	}
}

// Done is Add(-1).
func (g *WaitGroup) Done() { g.Add(-1) }

// Wait returns when the count is 0, or has been since the call.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
func (g *WaitGroup) Wait() { g.wait(nil) }

// WaitWithin is Wait with a limit.
//
// Errors: ErrTimeout, ErrCanceled.
func (g *WaitGroup) WaitWithin(l Limit) error { return g.wait(&l) }

func (g *WaitGroup) wait(l *Limit) error {
	return g.q.waitWhile(&g.round, atomic.LoadUint32(&g.round)|1, l, whyWaitGroup)
}
