package asm

import (
	"syscall"
	"testing"
	"unsafe"
)

// TestClockIsTheKernels compares the vDSO's clock with the system call's.
func TestClockIsTheKernels(t *testing.T) {
	if !InitClock() {
		t.Skip("no vDSO with a clock here")
	}
	call := func() int64 {
		var ts syscall.Timespec
		syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&ts)), 0)
		return ts.Nano()
	}
	var room [16 << 10]byte // the C code does not check the stack
	deep(&room)
	for range 10_000 {
		before := call()
		ns, ok := Clock()
		if after := call(); !ok || ns < before || ns > after {
			t.Fatalf("%d, %t, between %d and %d", ns, ok, before, after)
		}
	}
}

//go:noinline
func deep(room *[16 << 10]byte) { room[0]++ }

func BenchmarkClock(b *testing.B) {
	if !InitClock() {
		b.Skip("no vDSO with a clock here")
	}
	for b.Loop() {
		Clock()
	}
}
