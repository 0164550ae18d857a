package futex

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A PICond is a Cond for a PIMutex. Signal and Broadcast give the mutex to the
// waiters, or move them to its queue, in one step (FUTEX_CMP_REQUEUE_PI), in the
// order of their priorities: nobody wakes up to find that the mutex is held, and
// the holder inherits their priority at once. The zero PICond is ready; the
// first Wait binds it to its PIMutex, and another one panics. Call Wait in a
// loop that looks at the condition.
//
// The protocol is that of Cond, where the kernel does the last step. A waiter
// that sleeps on seq is moved to the mutex by the kernel and returns with the
// mutex locked. One that does not get to sleep, or stops, locks it as anybody
// does.
//
//	seq      grows by one with each Signal and Broadcast that found waiters
//	waiters  callers between their count and their return from sleep
//	mutex    distance in bytes from the PICond to its PIMutex; 0: not bound yet
//
// Its memory stays until the calls on it have returned.
type PICond struct {
	_       noCopy
	seq     uint32
	waiters uint32
	mutex   uintptr
	share   sharing
}

// Share makes c work between processes, with a PIMutex in the same mapping that
// is shared too; see the package documentation.
func (c *PICond) Share() { c.share.set(atomic.LoadUint32(&c.waiters) == 0) }

// Wait unlocks m, waits for a Signal or Broadcast, and locks m again. It panics
// if the caller does not hold m.
//
// Context: thread or goroutine; a goroutine holds no P while it waits.
// Errors: those of m.Lock; with an *Error m is not held, with all others it is.
// Ordering: that of m.
// Source: FUTEX_WAIT_REQUEUE_PI in futex(2).
func (c *PICond) Wait(m *PIMutex) error { return c.wait(m, Deadline{}) }

// WaitFor is Wait for at most d, not counting the time it takes to lock m.
//
// Errors: also ErrTimeout if nobody has signalled since the call.
func (c *PICond) WaitFor(m *PIMutex, d time.Duration) error { return c.wait(m, After(d)) }

// WaitUntil is WaitFor with a Deadline. A loop needs this one.
func (c *PICond) WaitUntil(m *PIMutex, d Deadline) error { return c.wait(m, d) }

func (c *PICond) wait(m *PIMutex, d Deadline) error {
	tid := self()
	if !m.heldBy(tid) {
		panic("futex: Wait with a PIMutex that the caller does not hold")
	}
	if m.share != c.share {
		panic("futex: of PICond and PIMutex only one is shared")
	}
	distance := uintptr(unsafe.Pointer(m)) - uintptr(unsafe.Pointer(c))
	if atomic.LoadUintptr(&c.mutex) != distance && !atomic.CompareAndSwapUintptr(&c.mutex, 0, distance) {
		panic("futex: PICond used with two PIMutexes")
	}
	atomic.AddUint32(&c.waiters, 1)
	seq := atomic.LoadUint32(&c.seq)
	m.release(tid)
	errno := c.share.scope().waitRequeuePI(&c.seq, seq, uintptr(unsafe.Pointer(&m.state)), d)
	signalled := errno != syscall.ETIMEDOUT || atomic.LoadUint32(&c.seq) != seq
	atomic.AddUint32(&c.waiters, ^uint32(0))
	switch errno {
	case 0:
		return m.taken()
	case syscall.EAGAIN, syscall.EINTR, syscall.ETIMEDOUT:
	default:
		panic("futex: the kernel refuses to wait on this PICond")
	}
	if err := m.acquire(tid, Deadline{}); err != nil {
		if err != ErrOwnerDied {
			unclaim()
		}
		return err
	}
	if !signalled {
		return ErrTimeout
	}
	return nil
}

// Signal lets one waiter go on, if there is one: the longest asleep of those of
// the highest priority. The caller may hold the mutex.
//
// Context: goroutine or thread; it never sleeps.
// Errors: ErrOwnerDied: the mutex's owner has ended without unlocking it, and
// nobody was woken. Lock it, and signal again. *Error with ENOMEM, ENOSYS.
// Source: FUTEX_CMP_REQUEUE_PI in futex(2).
func (c *PICond) Signal() error { return c.release(0) }

// Broadcast lets all waiters go on, one after the other as the mutex comes
// free. The caller may hold the mutex.
//
// Context: goroutine or thread; it never sleeps.
// Errors: as Signal.
func (c *PICond) Broadcast() error { return c.release(All) }

// release gives the mutex to one waiter, or moves it and others there. Where
// seq has changed since its addition others signal too: their waiters are as
// good as its own, and a wake too many is allowed.
func (c *PICond) release(others int) error {
	if atomic.LoadUint32(&c.waiters) == 0 {
		return nil
	}
	seq := atomic.AddUint32(&c.seq, 1)
	m := (*PIMutex)(pointer(uintptr(unsafe.Pointer(c)) + atomic.LoadUintptr(&c.mutex)))
	lock := uintptr(unsafe.Pointer(&m.state))
	for {
		switch _, errno := c.share.scope().requeue(opCmpRequeuePI, &c.seq, seq, lock, 1, others); errno {
		case 0:
			return nil
		case syscall.EAGAIN:
			seq = atomic.LoadUint32(&c.seq)
		case syscall.ESRCH:
			return ErrOwnerDied
		case syscall.EINVAL:
			if m.ownerGone() {
				return ErrOwnerDied // and its heir has not run yet
			}
			return fail(fnRequeue, errno)
		default:
			return fail(fnRequeue, errno)
		}
	}
}
