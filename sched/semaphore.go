package sched

import (
	"math"
	"unsafe"

	"lwprt/asm"
)

// A Semaphore counts permits that fibers, threads and goroutines acquire and
// release. The zero Semaphore has none. It must not be copied after first use.
// Permits go to those who wait in the order in which they came: one that wants
// many is not passed by those that want few.
type Semaphore struct {
	_ noCopy
	n int64
	q queue
}

// MaxPermits is the largest number of permits that a Semaphore can hold.
const MaxPermits = math.MaxInt32

// noCopy makes go vet's copylocks report copies of the struct that holds it.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Acquire takes n permits, and waits until it can.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Ordering: a Release happens before the return of the Acquire that it lets through.
func (s *Semaphore) Acquire(n int) { s.acquire(n, nil) }

// AcquireWithin is Acquire with a limit.
//
// Errors: ErrTimeout, ErrCanceled.
func (s *Semaphore) AcquireWithin(n int, l Limit) error { return s.acquire(n, &l) }

// TryAcquire takes n permits if there are as many and nobody waits, and reports
// whether it did.
//
// Context: anywhere.
func (s *Semaphore) TryAcquire(n int) bool {
	checkPermits(n)
	me, _ := here()
	me.needRoom()
	s.q.latch.lock()
	ok := s.take(n)
	s.q.latch.unlock()
	return ok
}

func (s *Semaphore) acquire(n int, l *Limit) error {
	checkPermits(n)
	me, f := here()
	me.needRoom()
	s.q.latch.lock()
	if s.take(n) {
		s.q.latch.unlock()
		return nil
	}
	if l == nil && f != nil {
		s.q.await(me, uintptr(n), 0, whySemaphore)
		return nil
	}
	s.q.latch.unlock()
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return s.acquireAs(newBounded(unsafe.Pointer(s)), n, b)
	}
	var w bounded
	return s.acquireAs(&w, n, b)
}

// take takes n permits if they are there for the caller; under the latch.
//
//go:nosplit // see latch
func (s *Semaphore) take(n int) bool {
	if s.q.first != 0 || s.n < int64(n) {
		return false
	}
	s.n -= int64(n)
	return true
}

// acquireAs is acquire with w to wait.
func (s *Semaphore) acquireAs(w *bounded, n int, b bound) error {
	asm.StopRoom() // not to run out of stack in the queue
	me, f := here()
	w.begin(me, f, !b.none())
	w.value = uintptr(n)
	s.q.latch.lock()
	if s.take(n) {
		s.q.latch.unlock()
		return nil
	}
	s.q.add(&w.node)
	s.q.latch.unlock()
	err := w.suspendWithin(me, f, whySemaphore, b, &w.cancel)
	if err != nil {
		s.withdraw(&w.node)
	}
	return err
}

// withdraw takes n out of the queue. Those behind it may have their turn now.
//
//go:nosplit // see latch
func (s *Semaphore) withdraw(n *node) {
	me, _ := here()
	s.q.latch.lock()
	if n.queued {
		s.q.remove(n)
	}
	next := s.deal(me)
	s.q.latch.unlock()
	next.resumeAll(me)
}

// deal takes those out whose turn it is; under the latch.
//
//go:nosplit // see latch
func (s *Semaphore) deal(me *worker) (first *node) {
	at := (*uintptr)(unsafe.Pointer(&first))
	for s.q.first != 0 {
		n := nodeAt(s.q.first)
		if s.n < int64(n.value) {
			break
		}
		ok := n.claimed(me)
		s.q.remove(n)
		if ok {
			s.n -= int64(n.value)
			*at, n.next = uintptr(unsafe.Pointer(n)), 0
			at = &n.next
		}
	}
	return first
}

// Release gives n permits. It panics if n is negative, or there would be more
// than MaxPermits.
//
// Context: anywhere; it never waits.
func (s *Semaphore) Release(n int) {
	checkPermits(n)
	if !s.release(int64(n)) {
		panic("sched: more permits than a Semaphore can hold")
	}
}

// release is Release, and reports false if that would be too many.
//
//go:nosplit // see latch
func (s *Semaphore) release(n int64) bool {
	me, _ := here()
	me.needRoom()
	s.q.latch.lock()
	if n > MaxPermits-s.n {
		s.q.latch.unlock()
		return false
	}
	s.n += n
	next := s.deal(me)
	s.q.latch.unlock()
	next.resumeAll(me)
	return true
}

func checkPermits(n int) {
	if n < 0 {
		panic("sched: a negative number of permits")
	}
}
