package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
)

// A Mutex is a mutual exclusion lock for fibers, threads and goroutines. The
// zero Mutex is free. It must not be copied after first use. It has no owner:
// who unlocks it need not be who locked it, and a fiber can move to another
// worker while it holds it.
//
// While nobody waits, Lock and Unlock are one compare-and-swap each. The first
// who has to wait sets mutexWaiters, and from then until nobody waits the word
// changes under the latch only:
//
//	word                               state                        leaves it by
//	0                                  free                         Lock: locked
//	locked                             held                         Unlock: free; who has to wait: waiters
//	locked, waiters                    held, some wait              Unlock, see below; the last gives up: locked
//	[locked,] waiters, woken, n barge  one that waited is on its    that one comes: locked, and waiters if there are any
//	                                   way; n took the lock before
//
// Unlock lets the first who waits go, which then takes the lock, unless others
// have been faster: mutexBarges of them can be, and wait then themselves. One
// that comes late and finds the lock held is the first in the queue again, and
// the next Unlock hands the lock over to it. So whoever waits is passed by
// those who came before it, by mutexBarges for each of them and by as many for
// itself, and by no more.
//
// Unlock gives the lock up in the last step in which it touches the Mutex,
// which the next owner can free: by the compare-and-swap, or under the latch
// when the next owner has to take the latch or to be resumed. If those who
// waited have all given up, it first clears waiters, and gives the latch back,
// as the owner that it still is.
type Mutex struct {
	_     noCopy
	state uint32
	q     queue
}

const (
	mutexLocked  = 1
	mutexWaiters = 2
	mutexWoken   = 4
	mutexBarge   = 8 // one, of the count in the bits from here up

	// mutexBarges was chosen among 0, which is to hand over always, 4, 16, 64
	// and 256. Where 100 fibers, pinned to two workers, had nothing to do but
	// lock and unlock, an operation took 750, 320, 170, 27 and 22 ns (medians of
	// five, the others of the machine busy): a lock that is handed over waits
	// until its next owner's worker has come to it. Where they let others run with
	// the lock held, on one worker or on two, all were alike, and everybody's
	// share was the same to within some percent with all of them.
	mutexBarges = 64
)

// What node.kind says of one who waits for a Mutex.
const (
	lockFirst = iota // comes for the first time
	lockLost         // has been woken and came too late
	lockMoved        // waited for a Cond, and has been claimed there: see Cond
)

// Lock takes the lock, and waits until it can.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Ordering: every Unlock happens before the return of the next Lock.
func (m *Mutex) Lock() {
	if !atomic.CompareAndSwapUint32(&m.state, 0, mutexLocked) {
		m.lockSlow()
	}
}

// TryLock takes the lock if it is free and nobody waits for it, and reports
// whether it did.
//
// Context: anywhere.
func (m *Mutex) TryLock() bool { return atomic.CompareAndSwapUint32(&m.state, 0, mutexLocked) }

// LockWithin is Lock with a limit.
//
// Errors: ErrTimeout, ErrCanceled; the lock is then not taken.
func (m *Mutex) LockWithin(l Limit) error {
	if m.TryLock() {
		return nil
	}
	return m.acquire(&l)
}

// Unlock gives the lock up. It panics if the lock is not held.
//
// Context: anywhere; it never waits.
func (m *Mutex) Unlock() {
	if !atomic.CompareAndSwapUint32(&m.state, mutexLocked, 0) {
		m.unlockSlow()
	}
}

//go:noinline // keeps the arguments of acquire out of every caller of Lock
func (m *Mutex) lockSlow() { m.acquire(nil) }

func (m *Mutex) acquire(l *Limit) error {
	if me, f := here(); l == nil && f != nil {
		m.await(me, f)
		return nil
	}
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return m.acquireAs(newBounded(unsafe.Pointer(m)), b)
	}
	var w bounded
	return m.acquireAs(&w, b)
}

// grab takes the lock if it may be taken now by one who has not waited. If not,
// the word says that somebody waits, as the caller then does. Under the latch.
//
//go:nosplit // see latch
func (m *Mutex) grab() bool {
	for {
		s := atomic.LoadUint32(&m.state)
		switch {
		case s == 0:
			if atomic.CompareAndSwapUint32(&m.state, 0, mutexLocked) {
				return true
			}
		case s&mutexWaiters == 0:
			if atomic.CompareAndSwapUint32(&m.state, s, s|mutexWaiters) {
				return false
			}
		case s&mutexLocked == 0 && s < mutexBarges*mutexBarge:
			atomic.StoreUint32(&m.state, (s|mutexLocked)+mutexBarge)
			return true
		default:
			return false
		}
	}
}

// arrive is grab by one that has been woken for it. If the lock is held, it is
// not on its way any more, and has to wait as the first. Under the latch.
//
//go:nosplit // see latch
func (m *Mutex) arrive() bool {
	if atomic.LoadUint32(&m.state)&mutexLocked != 0 {
		atomic.StoreUint32(&m.state, mutexLocked|mutexWaiters)
		return false
	}
	atomic.StoreUint32(&m.state, mutexLocked|m.waiters())
	return true
}

// waiters returns the bit that says whether there are any; under the latch.
//
//go:nosplit // see latch
func (m *Mutex) waiters() uint32 {
	if m.q.first != 0 {
		return mutexWaiters
	}
	return 0
}

// await takes the lock without a limit.
// What it calls is nosplit.
func (m *Mutex) await(me *worker, f *fiber) {
	m.q.latch.lock()
	if m.grab() {
		m.q.latch.unlock()
		return
	}
	for ok := m.q.await(me, 0, lockFirst, whyMutex); !ok; ok = m.awaitLost(me, f) {
		me = self()
		m.q.latch.lock()
		if m.arrive() {
			m.q.latch.unlock()
			return
		}
	}
}

// awaitLost waits as the first, and gives the latch back.
//
//go:nosplit // see latch
func (m *Mutex) awaitLost(me *worker, f *fiber) bool {
	var s single
	s.begin(me, f, false)
	s.kind = lockLost
	m.q.addFirst(&s.node)
	m.q.latch.unlock()
	s.suspend(me, f, whyMutex)
	return s.ok
}

// acquireAs is acquire with w to wait.
func (m *Mutex) acquireAs(w *bounded, b bound) error {
	asm.StopRoom() // not to run out of stack in the queue
	me, f := here()
	me.needRoom()
	w.begin(me, f, !b.none())
	m.q.latch.lock()
	if m.grab() {
		m.q.latch.unlock()
		return nil
	}
	m.q.add(&w.node)
	for {
		m.q.latch.unlock()
		err := w.suspendWithin(me, f, whyMutex, b, &w.cancel)
		if err == nil && w.ok {
			return nil
		}
		me, _ = here()
		m.q.latch.lock()
		if err != nil {
			m.withdraw(&w.node)
			m.q.latch.unlock()
			return err
		}
		if m.arrive() {
			m.q.latch.unlock()
			return nil
		}
		*w = bounded{}
		w.begin(me, f, !b.none())
		w.kind = lockLost
		m.q.addFirst(&w.node)
	}
}

// withdraw ends the wait of n, which was not let go; under the latch.
//
//go:nosplit // see latch
func (m *Mutex) withdraw(n *node) {
	if n.queued {
		m.q.remove(n)
	}
	if m.q.first == 0 && atomic.LoadUint32(&m.state) == mutexLocked|mutexWaiters {
		atomic.StoreUint32(&m.state, mutexLocked)
	}
}

// abandon is for one that has been woken for the lock and does not come: it takes
// the lock, if that is free, and gives it to the next.
func (m *Mutex) abandon() {
	m.q.latch.lock()
	s := atomic.LoadUint32(&m.state)
	if s&mutexLocked != 0 {
		atomic.StoreUint32(&m.state, mutexLocked|m.waiters())
		m.q.latch.unlock()
		return
	}
	atomic.StoreUint32(&m.state, mutexLocked|mutexWaiters)
	m.q.latch.unlock()
	m.release()
}

func (m *Mutex) unlockSlow() {
	self().needRoom()
	if !m.release() {
		panic("sched: Unlock of an unlocked Mutex")
	}
}

// release is Unlock, and reports false if the lock is not held.
//
//go:nosplit // see latch
func (m *Mutex) release() bool {
	if atomic.CompareAndSwapUint32(&m.state, mutexLocked, 0) {
		return true
	}
	me, _ := here()
	for {
		m.q.latch.lock()
		s := atomic.LoadUint32(&m.state)
		if s&mutexLocked == 0 {
			m.q.latch.unlock()
			return false
		}
		if s&mutexWoken != 0 { // that one comes, and takes it
			atomic.StoreUint32(&m.state, s&^mutexLocked)
			m.q.latch.unlock()
			return true
		}
		if n := m.take(me); n != nil {
			m.pass(n)
			m.q.latch.unlock()
			n.resume(me)
			return true
		}
		atomic.StoreUint32(&m.state, mutexLocked)
		m.q.latch.unlock()
		if atomic.CompareAndSwapUint32(&m.state, mutexLocked, 0) {
			return true
		}
	}
}

// pass has n, which is not in the queue any more, take the held lock, or try
// to; under the latch. The caller resumes n.
//
//go:nosplit // see latch
func (m *Mutex) pass(n *node) {
	if n.ok = n.kind != lockFirst; n.ok {
		atomic.StoreUint32(&m.state, mutexLocked|m.waiters())
	} else {
		atomic.StoreUint32(&m.state, mutexWaiters|mutexWoken)
	}
}

// take is queue.take, where nodes can be that have been claimed before.
//
//go:nosplit // see latch
func (m *Mutex) take(me *worker) *node {
	for m.q.first != 0 {
		n := nodeAt(m.q.first)
		ok := n.kind == lockMoved && n.held(me) || n.kind != lockMoved && n.claimed(me)
		m.q.remove(n)
		if ok {
			return n
		}
	}
	return nil
}

// held is claimed of a node that was claimed before, and let go of for a time.
//
//go:nosplit // as node.of
func (n *node) held(me *worker) bool {
	w := n.of()
	return w.fiber == 0 || w.local(me) || (*fiber)(pointer(w.fiber)).hold() != nil
}

// addFirst puts n at the beginning; under the latch.
//
//go:nosplit // as node.of
func (q *queue) addFirst(n *node) {
	at := uintptr(unsafe.Pointer(n))
	n.queue, n.queued = uintptr(unsafe.Pointer(q)), true
	n.next, n.prev = q.first, 0
	if q.first == 0 {
		q.last = at
	} else {
		nodeAt(q.first).prev = at
	}
	q.first = at
}
