package futex

import "sync/atomic"

// A Once runs one function once.
//
//	word          meaning                        leaves it by
//	onceNew       nobody has called Do           the first Do: onceRunning
//	onceRunning   f runs                         f's end: onceDone; a second caller: onceSleepers
//	onceSleepers  f runs and someone may sleep   f's end: onceDone, and wakes all
//	onceDone      f has returned                 never
type Once struct {
	_     noCopy
	state uint32
}

const (
	onceNew = iota
	onceRunning
	onceSleepers
	onceDone
)

// Do calls f if it is the first call of Do on o. Every call returns only when
// f has; callers that come while it runs sleep. An f that calls Do on the same
// Once waits for itself for ever.
//
// If f panics on a goroutine, o counts as done. If it faults on a thread of
// ours nothing runs after it, and whoever waits in Do or comes later waits for
// ever.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Ordering: the return of f synchronizes before the return of every Do.
func (o *Once) Do(f func()) {
	if atomic.LoadUint32(&o.state) != onceDone {
		o.do(f)
	}
}

func (o *Once) do(f func()) {
	if atomic.CompareAndSwapUint32(&o.state, onceNew, onceRunning) {
		defer o.done()
		f()
		return
	}
	for {
		switch s := atomic.LoadUint32(&o.state); s {
		case onceDone:
			return
		case onceSleepers:
			sleep(&o.state, s, MatchAny, Never)
		default:
			atomic.CompareAndSwapUint32(&o.state, onceRunning, onceSleepers)
		}
	}
}

func (o *Once) done() {
	if atomic.SwapUint32(&o.state, onceDone) == onceSleepers {
		wake(&o.state, All)
	}
}
