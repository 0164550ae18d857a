package futex

import (
	"sync/atomic"
	"syscall"
	"time"
)

// A PIMutex is a mutual exclusion lock for threads of different priorities: who
// holds it runs at the priority of the most urgent of those who wait for it, if
// that is higher than its own, and hands it to that one. It has an owner, and
// only the owner unlocks it. The zero PIMutex is free.
//
// What it is for: a thread of high priority that waits for a Mutex waits, beside
// the holder, for all threads of priorities between the two, as these keep the
// holder from running; for how long is not bounded. With a PIMutex it waits for
// the holder alone.
//
// The protocol is the kernel's. The word is 0 or the owner's TID, with two more
// bits. Lock and Unlock are one compare-and-swap each while nobody waits.
// Whoever finds the lock held asks the kernel to take it (FUTEX_LOCK_PI). The
// kernel keeps the waiters in order of priority, lends the owner the highest,
// and sets Waiters in the word, so that Unlock's swap fails and Unlock asks the
// kernel too (FUTEX_UNLOCK_PI), which writes the next owner's TID.
//
//	word                      state                     leaves it by
//	0                         free                      Lock: tid
//	tid                       held                      Unlock: 0; a waiter: +Waiters
//	tid, Waiters              held, others wait         Unlock: the next one's TID, [Waiters]
//	tid of one that is gone   the owner ended with it   Lock, which says ErrOwnerDied
//
// There is no spin before the sleep: on its CPU a waiter of high priority would
// keep the holder from running. And the lock is handed over, not left to
// whoever is quick, so that a PIMutex that is contended is many times slower
// than a Mutex.
//
// An owner that ends without unlocking is found out by its TID. Where the
// kernel has given that to another task meanwhile, Lock waits for that one: use
// a RobustMutex where owners may die. The thread of a pool goes on when a run
// ends; what the run has left locked stays so.
type PIMutex struct {
	_     noCopy
	state uint32
	share sharing
}

// Share makes m work between processes that are in one PID namespace; see the
// package documentation.
func (m *PIMutex) Share() { m.share.set(atomic.LoadUint32(&m.state) == 0) }

// Lock takes the lock, and waits until it can.
//
// Context: thread or goroutine. A goroutine holds no P while it sleeps, and is
// locked to its thread until Unlock; it inherits what its thread does.
// Errors: ErrDeadlock if the caller holds the lock, or waits for itself through
// other PI locks. ErrOwnerDied, with the lock taken, if the owner has ended
// without unlocking it: what the lock guards is as that one has left it. *Error
// with ENOMEM, ENOSYS, or EINVAL and EPERM where the word was written by
// something else.
// Ordering: every Unlock synchronizes before the return of the next Lock.
// Source: FUTEX_LOCK_PI in futex(2).
func (m *PIMutex) Lock() error { return m.lock(Deadline{}) }

// TryLock takes the lock if it is free, and reports whether it did.
func (m *PIMutex) TryLock() bool {
	if atomic.CompareAndSwapUint32(&m.state, 0, claim()) {
		return true
	}
	unclaim()
	return false
}

// LockFor is Lock for at most d.
//
// Errors: also ErrTimeout.
func (m *PIMutex) LockFor(d time.Duration) error { return m.lock(After(d)) }

// LockUntil is Lock until d at the latest.
//
// Errors: also ErrTimeout.
func (m *PIMutex) LockUntil(d Deadline) error { return m.lock(d) }

func (m *PIMutex) lock(d Deadline) error {
	tid := claim()
	if atomic.CompareAndSwapUint32(&m.state, 0, tid) {
		return nil
	}
	err := m.acquire(tid, d)
	if err != nil && err != ErrOwnerDied {
		unclaim()
	}
	return err
}

// acquire is lock by way of the kernel.
func (m *PIMutex) acquire(tid uint32, d Deadline) error {
	for tries := 0; ; tries++ {
		switch errno := m.share.scope().lockPI(&m.state, d); errno {
		case 0:
			return m.taken()
		case syscall.ETIMEDOUT:
			return ErrTimeout
		case syscall.EDEADLK:
			return ErrDeadlock
		case syscall.ESRCH:
			// The owner has given up its locks, but can be still about to go.
			if m.inherit(tid) {
				return ErrOwnerDied
			}
		case syscall.EINVAL:
			// So the kernel answers from an owner's end until the waiter that has
			// the lock then has run and written its TID: the word does not agree
			// with what the kernel knows. If it never does, it is not our word.
			if tries == maxDoze {
				return fail(fnLock, errno)
			}
		default:
			return fail(fnLock, errno)
		}
		// Whoever is waited for now does not inherit, and may need this CPU.
		if d.Passed() {
			return ErrTimeout
		}
		doze()
	}
}

// maxDoze is how often to doze for a task that is in the middle of something: a
// second or more.
const maxDoze = 1 << 14

// doze sleeps for as short as the kernel does it.
func doze() {
	var x uint32
	Private.WaitFor(&x, 0, 10*time.Microsecond)
}

// taken tells how the lock was left to its new owner, the caller.
func (m *PIMutex) taken() error {
	if atomic.LoadUint32(&m.state)&OwnerDied == 0 {
		return nil
	}
	atomic.AndUint32(&m.state, ^OwnerDied)
	return ErrOwnerDied
}

// inherit takes the lock of an owner that is gone. Nobody waits for it in the
// kernel, which hands over where somebody does. The task is looked for after the
// word was read: the one that the kernel missed may not be this one.
func (m *PIMutex) inherit(tid uint32) bool {
	v := atomic.LoadUint32(&m.state)
	return v&OwnerMask != 0 && gone(v&OwnerMask) && atomic.CompareAndSwapUint32(&m.state, v, tid|v&Waiters)
}

// Unlock gives the lock up, and with it the priority that came with it. It
// panics if the caller does not hold the lock.
//
// Context: the thread or goroutine that took the lock; it never sleeps.
// Source: FUTEX_UNLOCK_PI in futex(2).
func (m *PIMutex) Unlock() {
	m.release(self())
	unclaim()
}

func (m *PIMutex) release(tid uint32) {
	if !atomic.CompareAndSwapUint32(&m.state, tid, 0) {
		m.releaseSlow(tid)
	}
}

func (m *PIMutex) releaseSlow(tid uint32) {
	if !m.heldBy(tid) {
		panic("futex: Unlock of a PIMutex that the caller does not hold")
	}
	// Changes nothing, and tells the race detector, which does not see the kernel
	// hand the lock over, what happened before.
	atomic.OrUint32(&m.state, 0)
	for {
		switch m.share.scope().unlockPI(&m.state) {
		case 0:
			return
		case syscall.EAGAIN, syscall.EINTR:
		default:
			panic("futex: the kernel refuses to unlock this PIMutex")
		}
	}
}

// ownerGone reports whether the word names a task that there is not.
func (m *PIMutex) ownerGone() bool {
	owner := atomic.LoadUint32(&m.state) & OwnerMask
	return owner != 0 && gone(owner)
}

func (m *PIMutex) heldBy(tid uint32) bool { return atomic.LoadUint32(&m.state)&OwnerMask == tid }
