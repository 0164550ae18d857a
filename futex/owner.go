package futex

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// Locks with an owner, PIMutex and RobustMutex, belong to kernel tasks. A
// thread of ours is one; a goroutine is locked to its thread from Lock to
// Unlock, as by runtime.LockOSThread.

// claim returns the calling task's ID, and pins a goroutine to its thread.
func claim() uint32 {
	if asm.Current() == nil {
		runtime.LockOSThread()
	}
	return self()
}

// unclaim undoes what claim has done beside.
func unclaim() {
	if asm.Current() == nil {
		runtime.UnlockOSThread()
	}
}

// self returns the calling task's ID. A thread asks the kernel once.
func self() uint32 {
	t := asm.Current()
	if t == nil {
		return gettid()
	}
	if t.TID == 0 {
		t.TID = gettid()
	}
	return t.TID
}

func gettid() uint32 {
	tid, _, _ := unix.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	return uint32(tid)
}

// gone reports whether no task has this ID.
func gone(tid uint32) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_KILL, uintptr(tid), 0, 0)
	return errno == syscall.ESRCH
}

// pointer converts the address of something off the Go heap, or of something
// that is kept alive elsewhere.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }
