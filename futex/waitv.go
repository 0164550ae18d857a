package futex

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// MaxWaitv is how many words one Waitv can wait on.
const MaxWaitv = 128

const (
	sysFutexWaitv = 449 // the same on both ports
	waitvSize32   = 2   // FUTEX2_SIZE_U32
)

// A Word is one of those that Waitv waits on: an address, and the value that it
// is waited on with. It is struct futex_waitv. It holds a pointer, so a thread
// keeps its Words in its own frame.
type Word struct {
	val   uint64
	addr  unsafe.Pointer
	flags uint32
	_     uint32
}

// On returns the Word that stands for a wait on addr while *addr == val.
func (s Scope) On(addr *uint32, val uint32) Word {
	return Word{val: uint64(val), addr: unsafe.Pointer(addr), flags: waitvSize32 | uint32(s&flagPrivate)}
}

// Waitv sleeps until a wake on any of the words, or d, if each holds its value.
// index is the word that was woken on Woken, and -1 on every other Outcome. If
// several are woken at once it is one of them, and their wakes are used up:
// look at all of the words.
//
// The words may differ in scope. A word may occur more than once.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Errors: *Error with EINVAL (no words, more than MaxWaitv, or an address that is
// not aligned to 4 bytes), EFAULT, ENOMEM, ENOSYS (before Linux 5.16).
// Source: futex_waitv(2) in the kernel's userspace-api/futex2.
func Waitv(words []Word, d Deadline) (index int, out Outcome, err error) {
	i, errno := waitv(words, d)
	if errno != 0 {
		i = -1
	}
	out, err = outcome(errno)
	return i, out, err
}

func waitv(words []Word, d Deadline) (int, syscall.Errno) {
	var (
		i     uintptr
		errno syscall.Errno
		ts    unix.Timespec
		until *unix.Timespec
		clock = uintptr(unix.CLOCK_MONOTONIC)
	)
	if d.clock != never {
		ts = unix.NsecToTimespec(d.ns)
		until = &ts
	}
	if d.clock == realtime {
		clock = unix.CLOCK_REALTIME
	}
	if asm.Current() != nil {
		i, _, errno = unix.RawSyscall6(sysFutexWaitv, uintptr(unsafe.Pointer(unsafe.SliceData(words))), uintptr(len(words)), 0,
			uintptr(unsafe.Pointer(until)), clock, 0)
	} else {
		i, _, errno = unix.Syscall6(sysFutexWaitv, uintptr(unsafe.Pointer(unsafe.SliceData(words))), uintptr(len(words)), 0,
			uintptr(unsafe.Pointer(until)), clock, 0)
	}
	return int(i), errno
}
