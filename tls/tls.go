// Package tls is thread-local storage for the threads that package lwp makes:
// the thread control block (TCB) that the thread pointer leads to, and typed
// keys with destructors.
//
// Goroutines, green ones or hosted, have no storage here. On a goroutine
// Current is nil, Get finds nothing and Set is an error.
package tls

import (
	"unsafe"

	"lwprt/asm"
)

// Limits of thread-local storage, the same for every thread.
const (
	MaxKeys  = 64  // keys at one time
	MaxSize  = 256 // bytes of one value
	areaSize = 2048
)

// wordSize is the unit in which slots are dealt out.
const wordSize = 8

// TCB is a thread control block. It lies off the Go heap, at the thread pointer.
type TCB struct {
	asm.TCB
	Storage
}

// Storage holds one value for each key: those of a thread, in its TCB, or those
// of a green thread, wherever its scheduler keeps them. It lies off the Go heap.
type Storage struct {
	nset  int            // entries of order in use
	pass  int            // of RunDestructors, from 1; 0 while it does not run
	late  int            // entries, the first of order, that belong to the next pass
	order [MaxKeys]uint8 // keys that are set, first set first
	area  [areaSize / wordSize]uint64
}

// Current returns the TCB of the calling thread, or nil on a goroutine. It
// takes one to two nanoseconds and is safe anywhere, with and without a C
// library in the program.
func Current() *TCB { return (*TCB)(unsafe.Pointer(asm.Current())) }

// Below returns how many bytes below a TCB belong to it: the linker places the
// g slot there.
func Below() uintptr { return below }

var below = (uintptr(max(0, -asm.TLSOffset())) + 15) &^ 15

// Init makes t, zeroed or used before by a thread that has ended, the TCB of a
// thread with the stack [lo, hi). Compiled code keeps guard bytes above lo
// free. entry is the func(*asm.TCB) value that the thread runs.
func Init(t *TCB, lo, hi, guard uintptr, entry *func(*asm.TCB)) {
	t.Self = uintptr(unsafe.Pointer(t))
	t.Magic = asm.Magic
	t.Entry = *(*uintptr)(unsafe.Pointer(entry))
	t.TID, t.Robust = 0, asm.RobustList{}
	t.G.StackLo, t.G.StackHi = lo, hi
	t.G.StackGuard0, t.G.StackGuard1 = lo+guard, lo+guard
}
