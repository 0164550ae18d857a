package futex

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// Operations of priority inheritance.
const (
	opLockPI        = 6
	opUnlockPI      = 7
	opTrylockPI     = 8
	opWaitRequeuePI = 11
	opCmpRequeuePI  = 12
	opLockPI2       = 13
)

// Parts of the word of a lock that the kernel knows the owner of: of a PI lock,
// and of one on a robust list. Such a word is 0 while the lock is free.
const (
	OwnerMask uint32 = 0x3fffffff // the owner's TID, as gettid(2) gives it there
	OwnerDied uint32 = 1 << 30    // the owner has ended with the lock
	Waiters   uint32 = 1 << 31    // somebody waits in the kernel
)

// LockPI takes the PI lock at addr: the kernel puts the caller's TID into the
// word. If another task holds it, the caller sleeps until d at the latest, and the
// owner runs at the caller's priority until it unlocks, if that is higher; so does
// whoever the owner waits for in a PI lock. It returns Woken with the lock, or
// TimedOut.
//
// While the word is 0 the caller can take the lock without this call by writing
// its TID, in one step.
//
// Context: thread, or a goroutine that is locked to its thread and stays so
// while it holds the lock; it holds no P while it waits.
// Errors: *Error with EDEADLK (the caller holds the lock, or waits for itself
// through others), ESRCH (the owner named by the word is gone), EPERM (it is no
// task that can be waited for), EINVAL (the word does not agree with the
// kernel's state, or addr is not aligned), EFAULT, ENOMEM, ENOSYS.
// Source: FUTEX_LOCK_PI, FUTEX_LOCK_PI2 in futex(2). A monotonic d needs Linux
// 5.14; before that it is translated to the real-time clock.
func (s Scope) LockPI(addr *uint32, d Deadline) (Outcome, error) {
	switch errno := s.lockPI(addr, d); errno {
	case 0:
		return Woken, nil
	case syscall.ETIMEDOUT:
		return TimedOut, nil
	default:
		return Woken, fail(fnLock, errno)
	}
}

// TrylockPI takes the PI lock at addr if it can without sleeping, and reports
// whether it did. Unlike a look at the word it also takes one whose owner has
// ended, where the kernel knows that.
//
// Context: as LockPI; it never sleeps.
// Errors: as LockPI, but that a lock that is held is no error.
// Source: FUTEX_TRYLOCK_PI in futex(2).
func (s Scope) TrylockPI(addr *uint32) (bool, error) {
	_, _, errno := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(opTrylockPI), 0, 0, 0, 0)
	switch errno {
	case 0:
		return true, nil
	case syscall.EAGAIN:
		return false, nil
	}
	return false, fail(fnLock, errno)
}

// UnlockPI gives the PI lock at addr to the waiter of the highest priority, or
// makes the word 0, and ends what the caller has inherited through it. While
// the word is the caller's TID alone the caller can unlock without this call by
// writing 0, in one step.
//
// Context: the task that holds the lock; it never sleeps.
// Errors: *Error with EPERM (the caller does not hold the lock), EINVAL, EFAULT,
// ENOSYS.
// Source: FUTEX_UNLOCK_PI in futex(2).
func (s Scope) UnlockPI(addr *uint32) error {
	if errno := s.unlockPI(addr); errno != 0 {
		return fail(fnUnlock, errno)
	}
	return nil
}

// WaitRequeuePI sleeps, if *addr == val, until CmpRequeuePI has given the
// caller the PI lock at lock, or moved it there and the lock has come to it. On
// Woken the caller holds the lock; on every other Outcome it does not. addr and
// lock are two words, and the requeue has to name the same lock.
//
// Context: as LockPI. A signal handler restarts the wait, or ends it as Changed
// if it comes after the requeue.
// Errors: as LockPI.
// Source: FUTEX_WAIT_REQUEUE_PI in futex(2).
func (s Scope) WaitRequeuePI(addr *uint32, val uint32, lock *uint32, d Deadline) (Outcome, error) {
	return outcome(s.waitRequeuePI(addr, val, uintptr(unsafe.Pointer(lock)), d))
}

// CmpRequeuePI gives the PI lock at lock to the first of those who wait on addr
// in WaitRequeuePI, if the lock is free, or moves that one there, and moves up
// to requeue of the others, if *addr == val. changed says that the word held
// something else, and nobody was woken or moved. n is the sum of those woken and
// those moved.
//
// Context: goroutine or thread; it never sleeps.
// Errors: as LockPI; also EINVAL for a waiter of another kind or for another
// lock, or a negative count.
// Source: FUTEX_CMP_REQUEUE_PI in futex(2).
func (s Scope) CmpRequeuePI(addr *uint32, val uint32, lock *uint32, requeue int) (n int, changed bool, err error) {
	if requeue < 0 {
		return 0, false, fail(fnRequeue, syscall.EINVAL)
	}
	n, errno := s.requeue(opCmpRequeuePI, addr, val, uintptr(unsafe.Pointer(lock)), 1, requeue)
	if errno == syscall.EAGAIN {
		return 0, true, nil
	}
	n, err = count(fnRequeue, n, errno)
	return n, false, err
}

// lockPI is LockPI until it has an answer.
func (s Scope) lockPI(addr *uint32, d Deadline) syscall.Errno {
	op := uintptr(opLockPI)
	var (
		ts    unix.Timespec
		until *unix.Timespec
	)
	if d.clock != never {
		ts = unix.NsecToTimespec(d.ns)
		until = &ts
	}
	if d.clock == monotonic {
		op = opLockPI2
	}
	for {
		switch errno := s.waitPI(op, addr, 0, until, 0); errno {
		case syscall.EAGAIN, syscall.EINTR:
			// The owner is ending and the kernel has not yet seen to its locks; or
			// a signal of an old kernel.
		case syscall.ENOSYS:
			if op != opLockPI2 {
				return errno
			}
			op = opLockPI
			ts = unix.NsecToTimespec(onRealtime(d))
		default:
			return errno
		}
	}
}

// onRealtime translates a monotonic deadline for calls without that clock.
func onRealtime(d Deadline) int64 {
	return now(unix.CLOCK_REALTIME) + max(int64(d.Remaining()), 0)
}

func (s Scope) unlockPI(addr *uint32) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(opUnlockPI), 0, 0, 0, 0)
	return errno
}

// waitRequeuePI takes the lock as a number, as requeue does.
func (s Scope) waitRequeuePI(addr *uint32, val uint32, lock uintptr, d Deadline) syscall.Errno {
	op := uintptr(opWaitRequeuePI)
	if d.clock == never {
		return s.waitPI(op, addr, val, nil, lock)
	}
	if d.clock == realtime {
		op |= flagRealtime
	}
	ts := unix.NsecToTimespec(d.ns)
	return s.waitPI(op, addr, val, &ts, lock)
}

// waitPI sleeps in the way that suits the caller. ts may be nil.
func (s Scope) waitPI(op uintptr, addr *uint32, val uint32, ts *unix.Timespec, addr2 uintptr) syscall.Errno {
	var errno syscall.Errno
	if asm.Current() != nil {
		_, _, errno = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(op), uintptr(val),
			uintptr(unsafe.Pointer(ts)), addr2, 0)
	} else {
		_, _, errno = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(op), uintptr(val),
			uintptr(unsafe.Pointer(ts)), addr2, 0)
	}
	return errno
}
