package futex

import (
	"sync/atomic"

	"lwprt/asm"
)

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
	share sharing
}

const (
	onceNew = iota
	onceRunning
	onceSleepers
	onceDone
)

// Share makes o work between processes; see the package documentation. The f
// of the first Do runs in the process that called it.
func (o *Once) Share() { o.share.set(atomic.LoadUint32(&o.state) == onceNew) }

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
		if asm.Current() == nil {
			o.hosted(f)
			return
		}
		f()
		o.done()
		return
	}
	for {
		switch s := atomic.LoadUint32(&o.state); s {
		case onceDone:
			return
		case onceSleepers:
			sleep(o.share.scope(), &o.state, s, MatchAny, Deadline{})
		default:
			atomic.CompareAndSwapUint32(&o.state, onceRunning, onceSleepers)
		}
	}
}

// hosted runs f on a goroutine, where it can panic. (A thread could not defer in a
// program compiled without optimization.)
func (o *Once) hosted(f func()) {
	defer o.done()
	f()
}

func (o *Once) done() {
	scope := o.share.scope()
	if atomic.SwapUint32(&o.state, onceDone) == onceSleepers {
		wake(scope, &o.state, All)
	}
}
