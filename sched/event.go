package sched

import (
	"sync/atomic"
	"unsafe"
)

// An Event is a condition that is announced once for all: a manual-reset event,
// for fibers, threads and goroutines. The zero Event is not set. It must not be
// copied after first use.
//
//	state          meaning   leaves it by
//	2*n            not set   Set: 2*n+1, and lets all go that wait
//	2*n+1          set       Reset: 2*n+2
//
// A waiter waits while state is what it came with: with Set followed at once by
// Reset it goes on, although it may never see the event set. All is done under
// the latch, which a waiter takes on its way out too: Set has no more business
// with the Event when a Wait has returned.
type Event struct {
	_     noCopy
	state uint32
	q     queue
}

const eventSet = 1

// Set sets the event and lets every waiter go, also if Reset follows at once.
// It does nothing if the event is set.
//
// Context: anywhere; it never waits.
// Ordering: Set happens before the return of the waits that it ends, and before
// an IsSet that reports true.
func (e *Event) Set() { e.set() }

//go:nosplit // see latch
func (e *Event) set() {
	me, _ := here()
	me.needRoom()
	e.q.latch.lock()
	var all *node
	if e.state&eventSet == 0 {
		atomic.StoreUint32(&e.state, e.state+1)
		all = e.q.takeAll(me)
	}
	e.q.latch.unlock()
	all.resumeAll(me)
}

// Reset makes the event not set; later waits wait.
//
// Context: anywhere.
func (e *Event) Reset() {
	e.q.latch.lock()
	if e.state&eventSet != 0 {
		atomic.StoreUint32(&e.state, e.state+1)
	}
	e.q.latch.unlock()
}

// IsSet reports whether the event is set. Unlike the return of a wait, it does
// not say that Set is done with the Event's memory.
//
// Context: anywhere.
func (e *Event) IsSet() bool { return atomic.LoadUint32(&e.state)&eventSet != 0 }

// Wait returns when the event is set, at once if it is set already.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
func (e *Event) Wait() { e.wait(nil) }

// WaitWithin is Wait with a limit.
//
// Errors: ErrTimeout, ErrCanceled.
func (e *Event) WaitWithin(l Limit) error { return e.wait(&l) }

func (e *Event) wait(l *Limit) error {
	return e.q.waitWhile(&e.state, atomic.LoadUint32(&e.state)&^eventSet, l, whyEvent)
}

// Case is the case of a Select that e is set.
func (e *Event) Case() Case { return Case{on: unsafe.Pointer(&e.q), ready: eventReady} }

//go:nosplit // see latch
func eventReady(q unsafe.Pointer, _ bool) bool {
	return (*Event)(unsafe.Add(q, -int(unsafe.Offsetof(Event{}.q)))).state&eventSet != 0
}
