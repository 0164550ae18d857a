package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
)

// An RWMutex is held by any number of readers or by one writer, which can be
// fibers, threads and goroutines. The zero RWMutex is free. It must not be
// copied after first use.
//
// It is phase-fair. Where both want the lock, phases of readers and writers take
// turns: a reader that comes while a writer waits, waits as well, and all
// readers that wait go in when the next writer goes out. So a writer waits for
// the readers that were there before it, and for one phase of readers after each
// writer before it; a reader waits for one writer. Neither can starve. A reader
// must not call RLock again while it holds the lock: a writer that has come
// meanwhile would wait for it, and it for the writer.
//
//	state                            changes by
//	0                                RLock, Lock
//	n readers                        RLock, RUnlock; a writer that has to wait: waiters
//	writer                           Unlock; who has to wait: waiters
//	n readers or writer, waiters     under the latch of writers only
//
// As in Mutex the word is changed by compare-and-swap until somebody has to
// wait. From then on it is handed over: the last who leaves lets those go whose
// turn it is, who then have it already. If all who waited have given up, that one
// clears waiters first, as an owner yet.
//
// The latch of writers guards everything; where readers come into or out of
// their queue, that of readers is taken inside, for Close.
type RWMutex struct {
	_       noCopy
	state   uint32
	writers queue
	readers queue
}

const (
	rwWriter  = 1
	rwWaiters = 2
	rwReader  = 4 // one, of the count in the bits from here up
)

// RLock takes the lock for reading. There are less than 2^30 readers.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Ordering: an Unlock happens before the return of every later RLock and Lock,
// an RUnlock before the return of every later Lock.
func (rw *RWMutex) RLock() {
	if s := atomic.LoadUint32(&rw.state); s&(rwWriter|rwWaiters) != 0 || !atomic.CompareAndSwapUint32(&rw.state, s, s+rwReader) {
		rw.acquire(nil, rwReader)
	}
}

// RLockWithin is RLock with a limit.
//
// Errors: ErrTimeout, ErrCanceled; the lock is then not taken.
func (rw *RWMutex) RLockWithin(l Limit) error { return rw.acquire(&l, rwReader) }

// TryRLock takes the lock for reading if no writer holds it or waits for it, and
// reports whether it did.
//
// Context: anywhere.
func (rw *RWMutex) TryRLock() bool {
	for {
		s := atomic.LoadUint32(&rw.state)
		if s&(rwWriter|rwWaiters) != 0 {
			return false
		}
		if atomic.CompareAndSwapUint32(&rw.state, s, s+rwReader) {
			return true
		}
	}
}

// RUnlock undoes one RLock. It panics if nobody reads.
//
// Context: anywhere; it never waits.
func (rw *RWMutex) RUnlock() {
	if s := atomic.LoadUint32(&rw.state); s < rwReader || s&rwWaiters != 0 || !atomic.CompareAndSwapUint32(&rw.state, s, s-rwReader) {
		rw.runlockSlow()
	}
}

func (rw *RWMutex) runlockSlow() {
	if !rw.release(rwReader) {
		panic("sched: RUnlock of an RWMutex that nobody reads")
	}
}

// Lock takes the lock for writing.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Ordering: see RLock.
func (rw *RWMutex) Lock() {
	if !atomic.CompareAndSwapUint32(&rw.state, 0, rwWriter) {
		rw.acquire(nil, rwWriter)
	}
}

// LockWithin is Lock with a limit.
//
// Errors: ErrTimeout, ErrCanceled; the lock is then not taken.
func (rw *RWMutex) LockWithin(l Limit) error { return rw.acquire(&l, rwWriter) }

// TryLock takes the lock for writing if nobody holds it, and reports whether it
// did.
//
// Context: anywhere.
func (rw *RWMutex) TryLock() bool { return atomic.CompareAndSwapUint32(&rw.state, 0, rwWriter) }

// Unlock undoes Lock. It panics if nobody holds the lock for writing.
//
// Context: anywhere; it never waits.
func (rw *RWMutex) Unlock() {
	if !atomic.CompareAndSwapUint32(&rw.state, rwWriter, 0) {
		rw.unlockSlow()
	}
}

func (rw *RWMutex) unlockSlow() {
	if !rw.release(rwWriter) {
		panic("sched: Unlock of an RWMutex that nobody writes")
	}
}

// acquire takes the lock by adding one, rwReader or rwWriter, to the word.
func (rw *RWMutex) acquire(l *Limit, one uint32) error {
	if me, f := here(); l == nil && f != nil {
		rw.writers.latch.lock()
		switch {
		case rw.grab(one):
			rw.writers.latch.unlock()
		case one == rwWriter:
			rw.writers.await(me, 0, 0, whyWrite)
		default:
			rw.awaitRead(me, f)
		}
		return nil
	}
	if one == rwReader && rw.TryRLock() || one == rwWriter && rw.TryLock() {
		return nil
	}
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return rw.acquireAs(newBounded(unsafe.Pointer(rw)), one, b)
	}
	var w bounded
	return rw.acquireAs(&w, one, b)
}

// grab takes the lock if nobody is in the way. If not, the caller has to wait,
// and the word says so. Under the latch.
//
//go:nosplit // see latch
func (rw *RWMutex) grab(one uint32) bool {
	for {
		s := atomic.LoadUint32(&rw.state)
		switch {
		case s&rwWaiters != 0:
			return false
		case s == 0 || one == rwReader && s&rwWriter == 0:
			if atomic.CompareAndSwapUint32(&rw.state, s, s+one) {
				return true
			}
		case atomic.CompareAndSwapUint32(&rw.state, s, s|rwWaiters):
			return false
		}
	}
}

// awaitRead waits as a reader without a limit, and gives the latch back.
//
//go:nosplit // see latch
func (rw *RWMutex) awaitRead(me *worker, f *fiber) {
	var s single
	s.begin(me, f, false)
	rw.enqueue(me, &s.node, rwReader)
	rw.writers.latch.unlock()
	s.suspend(me, f, whyRead)
}

//go:nosplit // see latch
func whyLock(one uint32) why {
	if one == rwReader {
		return whyRead
	}
	return whyWrite
}

// enqueue puts n where it belongs; under the latch.
//
//go:nosplit // see latch
func (rw *RWMutex) enqueue(me *worker, n *node, one uint32) {
	if one == rwWriter {
		rw.writers.add(n)
		return
	}
	rw.readers.latch.lock()
	rw.readers.add(n)
	rw.readers.latch.unlock()
}

// acquireAs is acquire with w to wait.
func (rw *RWMutex) acquireAs(w *bounded, one uint32, b bound) error {
	asm.StopRoom() // not to run out of stack in the queue
	me, f := here()
	me.needRoom()
	w.begin(me, f, !b.none())
	rw.writers.latch.lock()
	if rw.grab(one) {
		rw.writers.latch.unlock()
		return nil
	}
	rw.enqueue(me, &w.node, one)
	rw.writers.latch.unlock()
	err := w.suspendWithin(me, f, whyLock(one), b, &w.cancel)
	if err != nil {
		rw.withdraw(&w.node, one)
	}
	return err
}

// withdraw ends the wait of n, which was not let go. Readers that have waited for
// nobody but this writer need not any more.
//
//go:nosplit // see latch
func (rw *RWMutex) withdraw(n *node, one uint32) {
	me, _ := here()
	rw.writers.latch.lock()
	if one == rwWriter {
		if n.queued {
			rw.writers.remove(n)
		}
	} else {
		rw.readers.drop(n)
	}
	var all *node
	if s := atomic.LoadUint32(&rw.state); s&rwWaiters != 0 && rw.writers.first == 0 {
		if s&rwWriter == 0 {
			all = rw.admit(me, s&^rwWaiters)
		} else {
			atomic.StoreUint32(&rw.state, rwWriter|rw.waiters())
		}
	}
	rw.writers.latch.unlock()
	all.resumeAll(me)
}

// waiters returns the bit that says whether there are any; under the latch.
//
//go:nosplit // see latch
func (rw *RWMutex) waiters() uint32 {
	if rw.writers.first != 0 || atomic.LoadUintptr(&rw.readers.first) != 0 {
		return rwWaiters
	}
	return 0
}

// admit gives the lock to all readers that wait, beside those of s, and takes
// them out; under the latch.
//
//go:nosplit // see latch
func (rw *RWMutex) admit(me *worker, s uint32) *node {
	rw.readers.latch.lock()
	all := rw.readers.takeAll(me)
	rw.readers.latch.unlock()
	for n := all; n != nil; n = nodeAt(n.next) {
		s += rwReader
	}
	if all != nil || s != 0 {
		atomic.StoreUint32(&rw.state, s|rw.waiters())
	}
	return all
}

// release undoes acquire, and reports false if the lock is not held so.
// What it calls is nosplit.
func (rw *RWMutex) release(one uint32) bool {
	me, _ := here()
	me.needRoom()
	for {
		rw.writers.latch.lock()
		s := atomic.LoadUint32(&rw.state)
		if one == rwReader && s < rwReader || one == rwWriter && s&rwWriter == 0 {
			rw.writers.latch.unlock()
			return false
		}
		var next *node
		if s&rwWaiters != 0 {
			if s >= 2*rwReader { // not the last
				atomic.StoreUint32(&rw.state, s-rwReader)
				rw.writers.latch.unlock()
				return true
			}
			if one == rwWriter {
				next = rw.admit(me, 0)
			}
			if next == nil {
				if next = rw.writers.take(me); next != nil {
					next.next = 0
					atomic.StoreUint32(&rw.state, rwWriter|rw.waiters())
				} else if next = rw.admit(me, 0); next == nil {
					s &^= rwWaiters
					atomic.StoreUint32(&rw.state, s)
				}
			}
		}
		rw.writers.latch.unlock()
		if next != nil {
			next.resumeAll(me)
			return true
		}
		if atomic.CompareAndSwapUint32(&rw.state, s, s-one) {
			return true
		}
	}
}
