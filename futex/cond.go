package futex

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// A Cond lets callers that hold a Mutex wait for a change of what it guards.
// The zero Cond is ready. The Mutex is an argument of Wait, and not a field, so
// that a Cond holds no pointer; the first Wait binds the Cond to its Mutex, and
// another one panics.
//
// A wait can end without a Signal or Broadcast that was meant for it: call it
// in a loop that looks at the condition.
//
//	m.Lock()
//	for !condition() {
//		c.Wait(&m)
//	}
//	...
//	m.Unlock()
//
// The protocol. seq counts the signals. A waiter, still holding the mutex,
// counts itself in waiters and reads seq, unlocks, and sleeps while seq is
// what it read. A signal adds one to seq and wakes one sleeper. The naive
// condition variable, which unlocks and then sleeps without a word to
// compare, loses every signal that comes between the two. Here such a signal
// has changed seq, and the sleep does not begin.
//
// Signal and Broadcast do nothing where waiters is 0, and lose nobody by it:
// who changed the condition under the mutex did so before the waiter took the
// mutex, and then the waiter saw the change, or after it gave it up, and then
// it was counted.
//
// Broadcast does not wake all to have them fight for one mutex. It wakes one
// and moves the others to the queue of the mutex in one step
// (FUTEX_CMP_REQUEUE). The mutex word knows nothing of those sleepers, so
// whoever returns from the sleep locks it as one behind whom others may sleep
// (mutexLocked|mutexSleepers): its Unlock wakes the next of them, and so on
// to the last. For the same reason a waiter that was woken never sleeps on
// seq again, even if seq has not changed: the wake may have been an Unlock's,
// and the duty to wake the next has come with it. If seq changes between
// Broadcast's addition and its requeue, the kernel moves nobody and Broadcast
// wakes all, which is never wrong.
//
//	seq      grows by one with each Signal and Broadcast that found waiters;
//	         a waiter that does not get to sleep for exactly a multiple of 2^32 of them is not told
//	waiters  callers between their count and their return from sleep
//	mutex    distance in bytes from the Cond to its Mutex; 0: not bound yet
//
// Signal wakes the waiter that has slept longest among those of the highest
// real-time priority. Who signals without holding the mutex should know that
// one of higher priority that comes in that moment can take the wake-up.
type Cond struct {
	_       noCopy
	seq     uint32
	waiters uint32
	// A distance, unlike an address, stays right if both lie on a stack that
	// moves, and is the same wherever memory is mapped.
	mutex uintptr
	share sharing
}

// Share makes c work between processes, with a Mutex in the same mapping that
// is shared too; see the package documentation.
func (c *Cond) Share() { c.share.set(atomic.LoadUint32(&c.waiters) == 0) }

// Wait unlocks m, waits for a Signal or Broadcast, and locks m again. The
// caller holds m.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Ordering: that of m.
func (c *Cond) Wait(m *Mutex) { c.wait(m, Deadline{}) }

// WaitFor is Wait for at most d, not counting the time it takes to lock m. It
// returns false if the time was up and nobody had signalled since the call; m
// is locked either way.
func (c *Cond) WaitFor(m *Mutex, d time.Duration) bool { return c.wait(m, After(d)) }

// WaitUntil is WaitFor with a Deadline. A loop needs this one.
func (c *Cond) WaitUntil(m *Mutex, d Deadline) bool { return c.wait(m, d) }

func (c *Cond) wait(m *Mutex, d Deadline) bool {
	c.bind(m)
	atomic.AddUint32(&c.waiters, 1)
	seq := atomic.LoadUint32(&c.seq)
	m.Unlock()
	out := Interrupted
	for out == Interrupted && atomic.LoadUint32(&c.seq) == seq {
		out = sleep(c.share.scope(), &c.seq, seq, wakeNormal, d)
	}
	signalled := out != TimedOut || atomic.LoadUint32(&c.seq) != seq
	atomic.AddUint32(&c.waiters, ^uint32(0))
	m.relock()
	return signalled
}

// bind notes which Mutex goes with c.
func (c *Cond) bind(m *Mutex) {
	distance := uintptr(unsafe.Pointer(m)) - uintptr(unsafe.Pointer(c))
	if atomic.LoadUintptr(&c.mutex) != distance && !atomic.CompareAndSwapUintptr(&c.mutex, 0, distance) {
		panic("futex: Cond used with two Mutexes")
	}
}

// Signal wakes one waiter, if there is one. The caller may hold the mutex.
//
// Context: goroutine or thread; it never sleeps.
func (c *Cond) Signal() {
	if atomic.LoadUint32(&c.waiters) != 0 {
		c.signal()
	}
}

func (c *Cond) signal() {
	atomic.AddUint32(&c.seq, 1)
	wake(c.share.scope(), &c.seq, 1)
}

// Broadcast wakes all waiters; they go on one after the other, as the mutex
// comes free. The caller may hold the mutex.
//
// Context: goroutine or thread; it never sleeps.
func (c *Cond) Broadcast() {
	if atomic.LoadUint32(&c.waiters) != 0 {
		c.broadcast()
	}
}

func (c *Cond) broadcast() { c.release(atomic.AddUint32(&c.seq, 1)) }

// release wakes one sleeper and moves the others to the mutex, if seq is still
// what the caller has made it.
func (c *Cond) release(seq uint32) {
	scope := c.share.scope()
	m := uintptr(unsafe.Pointer(c)) + atomic.LoadUintptr(&c.mutex)
	if _, errno := scope.requeue(opCmpRequeue, &c.seq, seq, m, 1, All); errno != 0 {
		wake(scope, &c.seq, All)
	}
}
