package sched

import (
	"math"
	"sync/atomic"
)

// A Barrier lets fibers, threads and goroutines go on in groups of n: Wait
// returns when n of them have called it. It is ready for the next group at once.
// A Barrier needs its count, by Init; Wait on the zero Barrier panics. It must
// not be copied after first use.
//
// Arrivals are counted under the latch. The last one begins a new group and
// lets the others go; it has no more business with the Barrier when one of them
// returns.
type Barrier struct {
	_       noCopy
	n       uint32
	arrived uint32 // 0 to n-1
	group   uint32
	q       queue
}

// Init makes b a Barrier for groups of n, wherever b is. It panics if n is not
// positive. Nobody may be using b.
func (b *Barrier) Init(n int) {
	if n <= 0 || n > math.MaxInt32 {
		panic("sched: Barrier of 0")
	}
	b.n, b.arrived = uint32(n), 0
}

// Wait waits until n callers have arrived. It returns true for exactly one of
// them, the last to arrive.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Ordering: every arrival of a group happens before every return of it.
func (b *Barrier) Wait() (serial bool) {
	serial, _ = b.wait(nil)
	return serial
}

// WaitWithin is Wait with a limit. A caller whose wait ends by that has not arrived.
//
// Errors: ErrTimeout, ErrCanceled.
func (b *Barrier) WaitWithin(l Limit) (serial bool, err error) { return b.wait(&l) }

func (b *Barrier) wait(l *Limit) (serial bool, err error) {
	if b.n == 0 {
		panic("sched: Barrier of 0")
	}
	group, last := b.arrive()
	if last {
		return true, nil
	}
	if err := b.q.waitWhile(&b.group, group, l, whyBarrier); err != nil && b.leave(group) {
		return false, err
	}
	return false, nil
}

// arrive counts the caller. The last of a group lets the others go.
//
//go:nosplit // see latch
func (b *Barrier) arrive() (group uint32, last bool) {
	me, _ := here()
	me.needRoom()
	b.q.latch.lock()
	group = b.group
	if b.arrived++; b.arrived < b.n {
		b.q.latch.unlock()
		return group, false
	}
	b.arrived = 0
	atomic.StoreUint32(&b.group, group+1)
	all := b.q.takeAll(me)
	b.q.latch.unlock()
	all.resumeAll(me)
	return group, true
}

// leave takes the caller's arrival back, and reports false if its group is
// complete.
//
//go:nosplit // see latch
func (b *Barrier) leave(group uint32) bool {
	b.q.latch.lock()
	left := b.group == group
	if left {
		b.arrived--
	}
	b.q.latch.unlock()
	return left
}

// abandon takes the arrival of n back, of a fiber that Close ends.
func (b *Barrier) abandon(n *node) {
	b.q.latch.lock()
	if n.queued {
		b.q.remove(n)
		b.arrived--
	}
	b.q.latch.unlock()
}
