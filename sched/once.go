package sched

import (
	"sync/atomic"

	"lwprt/asm"
)

// A Once runs one function once, for fibers, threads and goroutines. It must
// not be copied after first use, and stays in memory until all calls of Do have
// returned.
//
//	state         meaning                  leaves it by
//	onceNew       nobody has called Do     the first Do: onceRunning
//	onceRunning   f runs                   f's end: onceDone, and lets all go that wait
//	onceDone      f has returned           never
type Once struct {
	_     noCopy
	state uint32
	q     queue
}

const (
	onceNew = iota
	onceRunning
	onceDone
)

// Do calls f if it is the first call of Do on o. Every call returns only when
// f has; callers that come while it runs wait, without a limit. An f that calls
// Do on the same Once waits for itself for ever.
//
// If f panics on a goroutine, o counts as done. If it faults or Exits on a
// fiber, or on a thread, nothing runs after it, and whoever waits in Do or comes
// later waits for ever: a report of the deadlock says so.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Ordering: the return of f happens before the return of every Do.
func (o *Once) Do(f func()) {
	if atomic.LoadUint32(&o.state) != onceDone {
		o.do(f, nil)
	}
}

// DoWithin is Do with a limit for the wait for another caller's f; its own f
// has none.
//
// Errors: ErrTimeout, ErrCanceled; f still runs then.
func (o *Once) DoWithin(f func(), l Limit) error {
	if atomic.LoadUint32(&o.state) == onceDone {
		return nil
	}
	return o.do(f, &l)
}

func (o *Once) do(f func(), l *Limit) error {
	if !atomic.CompareAndSwapUint32(&o.state, onceNew, onceRunning) {
		return o.q.waitWhile(&o.state, onceRunning, l, whyOnce)
	}
	if asm.Current() == nil {
		o.hosted(f)
		return nil
	}
	f()
	o.done()
	return nil
}

// hosted runs f on a goroutine, where it can panic. (A fiber could not defer in
// a program compiled without optimization.)
func (o *Once) hosted(f func()) {
	defer o.done()
	f()
}

//go:nosplit // see latch
func (o *Once) done() {
	me, _ := here()
	me.needRoom()
	o.q.latch.lock()
	atomic.StoreUint32(&o.state, onceDone)
	all := o.q.takeAll(me)
	o.q.latch.unlock()
	all.resumeAll(me)
}
