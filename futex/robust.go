package futex

import (
	"sync/atomic"
	"time"
	"unsafe"

	"lwprt/asm"
)

// A RobustMutex is a mutual exclusion lock that does not stay held when its
// owner ends: a thread by a fault or a return, a process by a signal. The next
// one who locks it gets it, with ErrOwnerDied, repairs what it guards, says
// MakeConsistent, and goes on. It works between threads, and between all
// processes of one PID namespace that map the memory it lies in. The zero
// RobustMutex is free.
//
//	switch err := m.Lock(); err {
//	case futex.ErrOwnerDied:
//		repair()
//		m.MakeConsistent()
//	case nil:
//	default:
//		return err // not locked
//	}
//	...
//	m.Unlock()
//
// An owner that unlocks after ErrOwnerDied without MakeConsistent gives the
// lock up for good: every Lock is ErrNotRecoverable from then on.
//
// The protocol. The word is the owner's TID, and the owner keeps its locks in a
// list that it has shown to the kernel (set_robust_list(2)). When the task
// ends, the kernel goes through the list, and where the word is still that TID
// makes it OwnerDied and wakes one waiter. The word and the list cannot change
// in one step; for the moments between, the list's head names the lock as
// pending, and the kernel looks at that one too. So Lock is: pending, word,
// list, not pending; and Unlock: pending, list, word, wake, not pending. The
// kernel's wake is not private, and so no wait is: a RobustMutex needs no Share.
//
//	word                      state                         leaves it by
//	0                         free                          Lock: tid
//	tid [Waiters]             held                          Unlock: 0, wakes one; the owner's end: OwnerDied
//	OwnerDied [Waiters]       free, the owner has ended     Lock: +tid
//	tid OwnerDied [Waiters]   held by one who was told so   MakeConsistent: -OwnerDied; Unlock: given up; the owner's end
//	Waiters                   given up for good             never
//
// Two ends can come between a release and the wake-up that it owes: the
// releaser's, after it has changed the word, and that of the waiter it woke.
// Both have the lock pending then, and the kernel wakes a waiter for them if
// the word names nobody. That is why given up is a word without an owner, too.
//
// Who sleeps is woken in turn, but whoever is awake may be quicker; how often
// is not bounded. Of more than 2048 locks that a task holds at its end the
// kernel frees that many. The memory stays, and if it is the collector's is
// reachable for it, while the lock is held and until the calls on it have
// returned; it is not the frame of a goroutine, which can move.
type RobustMutex struct {
	_     noCopy
	state uint32
	// Links of the owner's list, addresses in the owner's address space.
	next uintptr // entry, or head
	prev uintptr // likewise
}

const (
	givenUp = Waiters

	linkNext     = unsafe.Offsetof(RobustMutex{}.next) // an entry's address is that of next
	robustPrev   = unsafe.Offsetof(RobustMutex{}.prev) - linkNext
	robustOffset = int(unsafe.Offsetof(RobustMutex{}.state)) - int(linkNext)
)

// Lock takes the lock, and waits until it can.
//
// Context: thread or goroutine. A goroutine holds no P while it sleeps, and is
// locked to its thread until Unlock; if it ends before, so does its thread, and
// the lock's owner has died. (The process's first thread the runtime keeps.)
// Errors: ErrOwnerDied, with the lock taken. Without it: ErrNotRecoverable;
// ErrDeadlock if the caller holds the lock; ErrForeignList if the task has
// another robust list, as those of a C library have, on which the goroutines of
// a cgo program run, and the first one where there is a dynamic linker; *Error
// with ENOSYS.
// Ordering: every Unlock, and every owner's end, synchronizes before the return
// of the next Lock.
// Source: set_robust_list(2), and robust-futex-ABI in the kernel's documentation.
func (m *RobustMutex) Lock() error { return m.lock(Deadline{}, false) }

// TryLock is Lock without the wait.
//
// Errors: as Lock's, and ErrBusy.
func (m *RobustMutex) TryLock() error { return m.lock(Deadline{}, true) }

// LockFor is Lock for at most d.
//
// Errors: also ErrTimeout.
func (m *RobustMutex) LockFor(d time.Duration) error { return m.lock(After(d), false) }

// LockUntil is Lock until d at the latest.
//
// Errors: also ErrTimeout.
func (m *RobustMutex) LockUntil(d Deadline) error { return m.lock(d, false) }

func (m *RobustMutex) lock(d Deadline, try bool) error {
	m.mustNotMove()
	tid := claim()
	list, err := robustList(tid)
	if err != nil {
		unclaim()
		return err
	}
	// The compiler keeps plain stores in order with the atomic operations and
	// stores around them, and it is the same CPU that ends the task.
	list.Pending = m.entry()
	if !atomic.CompareAndSwapUint32(&m.state, 0, tid) {
		if err = m.acquire(tid, d, try); err != nil && err != ErrOwnerDied {
			list.Pending = 0
			leaveList()
			unclaim()
			return err
		}
	}
	m.link(list)
	list.Pending = 0
	leaveList()
	return err
}

// acquire takes the word, or says why it cannot.
func (m *RobustMutex) acquire(tid uint32, d Deadline, try bool) error {
	hold := tid
	for spun := false; ; {
		v := atomic.LoadUint32(&m.state)
		switch {
		case v == 0:
			if atomic.CompareAndSwapUint32(&m.state, 0, hold) {
				return nil
			}
			continue
		case v == givenUp:
			// Whoever gave it up can have ended before it woke all.
			wake(Shared, &m.state, All)
			return ErrNotRecoverable
		case v&OwnerMask == 0:
			if atomic.CompareAndSwapUint32(&m.state, v, v|hold) {
				return ErrOwnerDied
			}
			continue
		case v&OwnerMask == tid:
			return ErrDeadlock
		case try:
			return ErrBusy
		case !spun:
			spun = true
			spinWhile(&m.state, v)
			continue
		case v&Waiters == 0:
			if !atomic.CompareAndSwapUint32(&m.state, v, v|Waiters) {
				continue
			}
			v |= Waiters
		}
		switch sleep(Shared, &m.state, v, MatchAny, d) {
		case Woken:
			hold = tid | Waiters // for those who may still sleep
		case TimedOut:
			return ErrTimeout
		}
	}
}

// MakeConsistent says that what the lock guards is in order again after
// ErrOwnerDied. It does nothing if it was. It panics if the caller does not hold
// the lock.
func (m *RobustMutex) MakeConsistent() {
	if atomic.LoadUint32(&m.state)&OwnerMask != self() {
		panic("futex: MakeConsistent of a RobustMutex that the caller does not hold")
	}
	atomic.AndUint32(&m.state, ^OwnerDied)
}

// Unlock gives the lock up; for good, if its last owner had died and nobody
// has said MakeConsistent. It panics if the caller does not hold the lock.
//
// Context: the thread or goroutine that took the lock; it never sleeps.
func (m *RobustMutex) Unlock() {
	tid := self()
	list, err := robustList(tid)
	if err != nil || atomic.LoadUint32(&m.state)&OwnerMask != tid {
		panic("futex: Unlock of a RobustMutex that the caller does not hold")
	}
	list.Pending = m.entry()
	m.unlink(list)
	m.release()
	list.Pending = 0
	leaveList()
	unclaim()
}

// release gives up the word and wakes who has to know.
func (m *RobustMutex) release() {
	for {
		v := atomic.LoadUint32(&m.state)
		if v&OwnerDied != 0 {
			if atomic.CompareAndSwapUint32(&m.state, v, givenUp) {
				wake(Shared, &m.state, All)
				return
			}
		} else if atomic.CompareAndSwapUint32(&m.state, v, 0) {
			if v&Waiters != 0 {
				wake(Shared, &m.state, 1)
			}
			return
		}
	}
}

func (m *RobustMutex) entry() uintptr { return uintptr(unsafe.Pointer(&m.next)) }

// link puts m first in list. At every step what follows the head is a list.
func (m *RobustMutex) link(list *asm.RobustList) {
	head, first := uintptr(unsafe.Pointer(list)), list.Next
	m.next, m.prev = first, head
	if first != head {
		*prevOf(first) = m.entry()
	}
	list.Next = m.entry()
}

// unlink takes m out of list.
func (m *RobustMutex) unlink(list *asm.RobustList) {
	*(*uintptr)(pointer(m.prev)) = m.next // the head's or an entry's next
	if m.next != uintptr(unsafe.Pointer(list)) {
		*prevOf(m.next) = m.prev
	}
}

// prevOf returns the link back of an entry; a head has none.
func prevOf(entry uintptr) *uintptr { return (*uintptr)(pointer(entry + robustPrev)) }

// mustNotMove panics if m lies in the frame of a goroutine, whose stack can be
// copied while the list and the kernel know m by its address.
func (m *RobustMutex) mustNotMove() {
	if asm.Current() != nil {
		return
	}
	stack := (*[2]uintptr)(pointer(asm.Getg())) // StackLo, StackHi of a G
	if at := uintptr(unsafe.Pointer(m)); at >= stack[0] && at < stack[1] {
		panic("futex: RobustMutex in the frame of a goroutine")
	}
}

// AbandonRobust does to each RobustMutex that the calling thread holds what the
// kernel does when the thread ends: for a thread that goes on for somebody else,
// as those of package lwp's pools do.
//
// Context: thread; on a goroutine it does nothing.
func AbandonRobust() {
	t := asm.Current()
	if t == nil || t.Robust.Next == 0 {
		return
	}
	head := uintptr(unsafe.Pointer(&t.Robust))
	if e := t.Robust.Pending; e != 0 {
		(*RobustMutex)(pointer(e - linkNext)).abandon(t.TID)
	}
	// Off the list first: an end in between leaves the lock to the kernel, as pending.
	for e := t.Robust.Next; e != head; e = t.Robust.Next {
		t.Robust.Pending = e
		m := (*RobustMutex)(pointer(e - linkNext))
		m.unlink(&t.Robust)
		m.abandon(t.TID)
	}
	t.Robust.Pending = 0
}

// abandon is the end of the owner tid, or of one who wanted the lock.
func (m *RobustMutex) abandon(tid uint32) {
	for {
		v := atomic.LoadUint32(&m.state)
		switch {
		case v&OwnerMask == 0:
			wake(Shared, &m.state, 1)
			return
		case v&OwnerMask != tid:
			return
		case atomic.CompareAndSwapUint32(&m.state, v, v&Waiters|OwnerDied):
			if v&Waiters != 0 {
				wake(Shared, &m.state, 1)
			}
			return
		}
	}
}
