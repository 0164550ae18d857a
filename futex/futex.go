package futex

import (
	"math"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// Operations and flags of futex(2).
const (
	opWait       = 0
	opWake       = 1
	opRequeue    = 3
	opCmpRequeue = 4
	opWaitBitset = 9
	opWakeBitset = 10

	flagPrivate  = 128
	flagRealtime = 256
)

// All, as a number of waiters, means every one of them. Larger numbers are
// taken as All.
const All = math.MaxInt32

// MatchAny is the bitset of a wait or wake that was given none.
const MatchAny uint32 = 0xffffffff

// A Scope says who can meet at a futex word. Waits and wakes meet only in the
// same scope.
type Scope uint32

const (
	Shared  Scope = 0           // every process that maps the word's page
	Private Scope = flagPrivate // tasks of this address space: cheaper, nothing to look up
)

// An Outcome is how a wait ended.
type Outcome uint8

const (
	Woken       Outcome = iota // a wake reached this waiter; it may be stale, see Wait
	Changed                    // the word did not hold val, so there was no wait (EAGAIN)
	Interrupted                // a signal handler ran (EINTR)
	TimedOut                   // the time was up (ETIMEDOUT)
)

// String returns the name of the constant, in lower case.
func (o Outcome) String() string {
	switch o {
	case Woken:
		return "woken"
	case Changed:
		return "changed"
	case Interrupted:
		return "interrupted"
	case TimedOut:
		return "timed out"
	}
	return "unknown outcome"
}

// Wait is Private.Wait.
func Wait(addr *uint32, val uint32) (Outcome, error) { return Private.Wait(addr, val) }

// WaitFor is Private.WaitFor.
func WaitFor(addr *uint32, val uint32, d time.Duration) (Outcome, error) {
	return Private.WaitFor(addr, val, d)
}

// WaitUntil is Private.WaitUntil.
func WaitUntil(addr *uint32, val uint32, d Deadline) (Outcome, error) {
	return Private.WaitUntil(addr, val, d)
}

// Wake is Private.Wake.
func Wake(addr *uint32, n int) (int, error) { return Private.Wake(addr, n) }

// Wait sleeps until a wake on addr, if *addr == val. The comparison and the
// start of the sleep are one step with respect to wakes: a waker that changes
// the word and then wakes misses nobody.
//
// Woken does not mean that the word has changed. The wake can be meant for an
// earlier user of the same address, or for somebody who no longer needs it:
// look at the word again, and wait again where it has not changed.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Errors: *Error with EFAULT (addr is not readable), EINVAL (addr is not
// aligned to 4 bytes), or what a seccomp filter returns. EAGAIN, EINTR and
// ETIMEDOUT are outcomes.
// Source: FUTEX_WAIT in futex(2).
func (s Scope) Wait(addr *uint32, val uint32) (Outcome, error) {
	return outcome(s.wait(opWait, addr, val, nil, 0))
}

// WaitFor is Wait for at most d on the monotonic clock; the kernel rounds the
// end up to its timer slack (50 us by default). It gives TimedOut at once if d
// is zero or negative and the word holds val.
//
// After Interrupted the time that has passed is not known: a loop needs
// WaitUntil.
//
// Source: FUTEX_WAIT in futex(2), with its relative timeout.
func (s Scope) WaitFor(addr *uint32, val uint32, d time.Duration) (Outcome, error) {
	ts := unix.NsecToTimespec(max(int64(d), 0))
	return outcome(s.wait(opWait, addr, val, &ts, 0))
}

// WaitUntil is Wait until d at the latest. It gives TimedOut at once if d has
// passed and the word holds val.
//
// Source: FUTEX_WAIT_BITSET in futex(2), with FUTEX_CLOCK_REALTIME for At.
func (s Scope) WaitUntil(addr *uint32, val uint32, d Deadline) (Outcome, error) {
	return s.WaitBitset(addr, val, MatchAny, d)
}

// WaitBitset is WaitUntil that answers only to wakes whose bitset has a bit in
// common with this one.
//
// Errors: also EINVAL if bitset is 0.
// Source: FUTEX_WAIT_BITSET in futex(2).
func (s Scope) WaitBitset(addr *uint32, val, bitset uint32, d Deadline) (Outcome, error) {
	return outcome(s.waitBitset(addr, val, bitset, d))
}

// Wake wakes up to n waiters on addr, the longest asleep first among those of
// equal priority, and returns how many. It does not read the word. A waiter with a
// bitset is woken whatever its bitset is.
//
// Context: goroutine or thread; it never sleeps.
// Errors: *Error with EINVAL if n is negative or addr is not aligned to 4
// bytes; with EFAULT if addr is no user address or, in Shared scope, not mapped.
// Ordering: none of its own; change the word with sync/atomic first.
// Source: FUTEX_WAKE in futex(2).
func (s Scope) Wake(addr *uint32, n int) (int, error) {
	// The kernel wakes one for a count of 0.
	if n <= 0 {
		return none(fnWake, n)
	}
	woken, errno := s.wake(opWake, addr, n, 0)
	return count(fnWake, woken, errno)
}

// WakeBitset is Wake for the waiters whose bitset has a bit in common with
// this one.
//
// Errors: also EINVAL if bitset is 0.
// Source: FUTEX_WAKE_BITSET in futex(2).
func (s Scope) WakeBitset(addr *uint32, n int, bitset uint32) (int, error) {
	if n <= 0 {
		return none(fnWake, n)
	}
	woken, errno := s.wake(opWakeBitset, addr, n, bitset)
	return count(fnWake, woken, errno)
}

// Requeue wakes up to wake waiters on addr and moves up to requeue of the
// others to addr2, where a wake on addr2 finds them, and returns how many it
// woke and moved together. It does not look at either word, so waiters that
// came after the caller's decision are moved as well: see CmpRequeue.
//
// Errors: *Error with EINVAL for a negative count or an address that is not
// aligned to 4 bytes; EFAULT as for Wake.
// Source: FUTEX_REQUEUE in futex(2). Its text gives the number woken as the
// result; the kernel returns the sum for both operations.
func (s Scope) Requeue(addr, addr2 *uint32, wake, requeue int) (n int, err error) {
	if wake < 0 || requeue < 0 {
		return 0, fail(fnRequeue, syscall.EINVAL)
	}
	n, errno := s.requeue(opRequeue, addr, 0, uintptr(unsafe.Pointer(addr2)), wake, requeue)
	return count(fnRequeue, n, errno)
}

// CmpRequeue is Requeue if *addr == val, the comparison and the move being one
// step. changed says that the word held something else, and nobody was woken
// or moved. n is the sum of those woken and those moved.
//
// Errors: as for Requeue; also EFAULT if addr is not readable.
// Source: FUTEX_CMP_REQUEUE in futex(2).
func (s Scope) CmpRequeue(addr *uint32, val uint32, addr2 *uint32, wake, requeue int) (n int, changed bool, err error) {
	if wake < 0 || requeue < 0 {
		return 0, false, fail(fnRequeue, syscall.EINVAL)
	}
	n, errno := s.requeue(opCmpRequeue, addr, val, uintptr(unsafe.Pointer(addr2)), wake, requeue)
	if errno == syscall.EAGAIN {
		return 0, true, nil
	}
	n, err = count(fnRequeue, n, errno)
	return n, false, err
}

// op returns the operation with the scope's flag.
func (s Scope) op(op uintptr) uintptr { return op | uintptr(s&flagPrivate) }

// wait sleeps in the way that suits the caller. ts may be nil.
func (s Scope) wait(op uintptr, addr *uint32, val uint32, ts *unix.Timespec, bitset uint32) syscall.Errno {
	var errno syscall.Errno
	if asm.Current() != nil {
		_, _, errno = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(op), uintptr(val),
			uintptr(unsafe.Pointer(ts)), 0, uintptr(bitset))
	} else {
		_, _, errno = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(op), uintptr(val),
			uintptr(unsafe.Pointer(ts)), 0, uintptr(bitset))
	}
	return errno
}

func (s Scope) waitBitset(addr *uint32, val, bitset uint32, d Deadline) syscall.Errno {
	if d.clock == never {
		return s.wait(opWaitBitset, addr, val, nil, bitset)
	}
	op := uintptr(opWaitBitset)
	if d.clock == realtime {
		op |= flagRealtime
	}
	ts := unix.NsecToTimespec(d.ns)
	return s.wait(op, addr, val, &ts, bitset)
}

func (s Scope) wake(op uintptr, addr *uint32, n int, bitset uint32) (int, syscall.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(op), uintptr(min(n, All)),
		0, 0, uintptr(bitset))
	return int(r), errno
}

// requeue takes addr2 as a number: the kernel does not read the word there, and
// a Cond knows it by its distance only.
func (s Scope) requeue(op uintptr, addr *uint32, val uint32, addr2 uintptr, wake, requeue int) (int, syscall.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(op), uintptr(min(wake, All)),
		uintptr(min(requeue, All)), addr2, uintptr(val))
	return int(r), errno
}

// outcome turns the errno of a wait into its outcome or its error.
func outcome(errno syscall.Errno) (Outcome, error) {
	switch errno {
	case 0:
		return Woken, nil
	case syscall.EAGAIN:
		return Changed, nil
	case syscall.EINTR:
		return Interrupted, nil
	case syscall.ETIMEDOUT:
		return TimedOut, nil
	}
	return Woken, fail(fnWait, errno)
}

// count turns the result of a wake or requeue into a number or an error.
func count(fn int, n int, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, fail(fn, errno)
	}
	return n, nil
}

// none is the result of waking n <= 0 waiters.
func none(fn, n int) (int, error) {
	if n < 0 {
		return 0, fail(fn, syscall.EINVAL)
	}
	return 0, nil
}
