package futex

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const opWakeOp = 5

// A WordOp is what WakeOp does to its second word, and for which old values it
// wakes there.
type WordOp struct {
	Op     Arith
	Arg    int  // -2048 to 2047, or 0 to 31 with Shift
	Shift  bool // use 1<<Arg in place of Arg
	Cmp    Compare
	CmpArg int // -2048 to 2047
}

// An Arith is how WakeOp makes the new value of a word from the old one and an
// argument.
type Arith uint8

const (
	OpSet    Arith = iota // arg
	OpAdd                 // old + arg
	OpOr                  // old | arg
	OpAndNot              // old &^ arg
	OpXor                 // old ^ arg
)

// A Compare is how WakeOp compares the old value of a word, as an int32, with
// an argument.
type Compare uint8

const (
	CmpEQ Compare = iota // old == arg
	CmpNE                // old != arg
	CmpLT                // old < arg
	CmpLE                // old <= arg
	CmpGT                // old > arg
	CmpGE                // old >= arg
)

const opShift = 8 // FUTEX_OP_OPARG_SHIFT

// encode returns the fourth argument of the operation. The kernel extends the
// sign of both arguments' 12 bits.
func (o WordOp) encode() (uint32, bool) {
	op, least, most := uint32(o.Op), -2048, 2047
	if o.Shift {
		op, least, most = op|opShift, 0, 31
	}
	if o.Op > OpXor || o.Cmp > CmpGE || o.Arg < least || o.Arg > most || o.CmpArg < -2048 || o.CmpArg > 2047 {
		return 0, false
	}
	return op<<28 | uint32(o.Cmp)<<24 | uint32(o.Arg)&0xfff<<12 | uint32(o.CmpArg)&0xfff, true
}

// WakeOp changes *addr2 by op in one step, wakes up to wake waiters on addr
// and, if the old value of *addr2 compares as op asks for, up to wake2 on addr2.
// It returns how many it woke in all.
//
// It is for whoever releases a lock and signals in one call: the new value, the
// look at the old one, and the wakes of both queues are one step with respect to
// waits and wakes of others.
//
// Context: goroutine or thread; it never sleeps.
// Errors: *Error with EINVAL for a count below 1, which the kernel would take as
// 1, an op that is out of range,
// or an address that is not aligned to 4 bytes; with EFAULT if addr2 is not
// writable, or as for Wake.
// Ordering: the change of *addr2 is sequentially consistent.
// Source: FUTEX_WAKE_OP in futex(2).
func (s Scope) WakeOp(addr, addr2 *uint32, wake, wake2 int, op WordOp) (n int, err error) {
	code, ok := op.encode()
	if wake < 1 || wake2 < 1 || !ok {
		return 0, fail(fnWake, syscall.EINVAL)
	}
	r, _, errno := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(addr)), s.op(opWakeOp), uintptr(min(wake, All)),
		uintptr(min(wake2, All)), uintptr(unsafe.Pointer(addr2)), uintptr(code))
	return count(fnWake, int(r), errno)
}
