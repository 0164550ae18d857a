//go:build linux && (amd64 || arm64)

// Package asm holds every instruction of lwprt that Go cannot express: clone
// and the child's first instructions, exit, the thread pointer, the g slot,
// the spin hint and the cycle counter; and, for the sake of speed, the shortest
// ways of package sched (fiber.go).
//
// The files are the same for every port: clone_linux_GOARCH.s (clone, child
// entry, exit), thread_linux_GOARCH.s (thread pointer, g, relax, cycles) and
// asm_GOARCH.go (what the port knows about the runtime). amd64 is the
// annotated reference; arm64 comments only what differs.
//
// Structures that assembly touches are declared in this file, so that their
// offsets reach it through go_asm.h. Functions return errnos, never errors.
package asm

import (
	"syscall"
	"unsafe"
)

// System call numbers and constants that assembly reads as const_x.
const (
	sysClone         = syscall.SYS_CLONE
	sysExit          = syscall.SYS_EXIT
	sysExitGroup     = syscall.SYS_EXIT_GROUP
	sysRtSigprocmask = syscall.SYS_RT_SIGPROCMASK
	sigBlock         = 0
	sigSetmask       = 2
	sigsetSize       = 8     // bytes in the kernel's sigset_t
	maxErrno         = 0xfff // the kernel returns -4095..-1 as errors
)

// Magic is the second word of a TCB. It is how a thread of ours is told from
// any other: what else can stand at that offset from the thread pointer is a
// pointer or a small integer (the C library's dtv, the runtime's m.tls), and
// this is neither.
const Magic = 0x6c777072_74544342 // "lwprtTCB"

// G is a goroutine descriptor of our own, as far as compiled Go looks into it:
// the prologue compares SP with StackGuard0, and the runtime's first step is
// to load M, which stays nil so that the step faults. The rest is there to be
// read as zero.
type G struct {
	StackLo, StackHi         uintptr
	StackGuard0, StackGuard1 uintptr
	Panic, Defer             uintptr
	M                        uintptr
	_                        [57]uintptr // more than the runtime's own has: 57 words in all
}

// TCB is the head of a thread control block: what assembly reads, at the
// thread pointer. Package tls builds the whole block around it.
type TCB struct {
	Self   uintptr // address of this TCB; the x86-64 ABI wants it at 0(FS)
	Magic  uintptr
	Entry  uintptr // func(*TCB) value that the child runs first
	Fault  uintptr // func(*TCB, int, *SigInfo, *SigContext) value, see InstallFaultEntry
	Worker uintptr // what a scheduler of green threads that runs on the thread knows it by
	G      G
	SigG   G // for the handler, with the bounds of the signal stack

	// What package futex knows of the task that runs as this TCB. Both are zero
	// when another task begins to.
	TID    uint32 // its kernel ID; 0: nobody has asked yet
	Robust RobustList
}

// RobustList is the head of a task's list of robust locks as the kernel reads
// it when the task ends, struct robust_list_head. It is registered if Next is
// not 0.
type RobustList struct {
	Next    uintptr // the first entry; the head's own address: none
	Offset  int     // from an entry to its futex word
	Pending uintptr // entry that is being locked or unlocked, or 0
}

// CloneArgs are the arguments of Clone. The addresses are plain words: what
// they point to is off the Go heap, or kept alive by the caller.
type CloneArgs struct {
	Flags     uintptr // CLONE_* and the termination signal in the low byte
	Stack     uintptr // the child's first SP, below its top by FrameSize; 0 for the caller's own
	ParentTID uintptr // *int32 for CLONE_PARENT_SETTID
	ChildTID  uintptr // *int32 for CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID
	TLS       uintptr // thread pointer for CLONE_SETTLS
	TCB       uintptr // what the child runs as; 0: the child exits at once, with status 0
}

// FrameSize is the room in bytes that the child's first frame needs between
// CloneArgs.Stack and the end of the stack.
const FrameSize = 32

// Clone creates a task by clone(2). All signals are blocked around the call,
// so the child starts with all of them blocked; the caller's mask is as before
// when Clone returns. The child sets its g to a.TCB.G, runs a.TCB.Entry and
// ends by exit(2) when that returns. With a.TCB zero it exits at once and
// touches no memory, which makes it safe with and without CLONE_VM.
//
// The result is the child's TID as the caller's PID namespace sees it, or an errno.
//
// Source: clone(2), signal(7).
//
//go:noescape
func Clone(a *CloneArgs) (tid, errno uintptr)

// Exit ends the calling task, and nothing but it, by exit(2).
func Exit(status int)

// ThreadPointer returns the thread pointer: FS base, TPIDR_EL0.
func ThreadPointer() uintptr

// SetThreadPointer sets the thread pointer and returns an errno. The runtime,
// and a C library where one is linked, find their state by it: only for a
// task that neither of them knows.
func SetThreadPointer(tp uintptr) (errno uintptr)

// Getg returns the address of the g that compiled Go runs on here.
func Getg() uintptr

// FramePointer returns the frame pointer as the caller's wrapper has it: the
// word it points to is the caller's frame pointer.
func FramePointer() uintptr

// TLSOffset returns where, relative to the thread pointer, the g slot of this
// program lies; the linker decides it. It is 0 where Getg needs no slot.
func TLSOffset() int

// Headroom ends a thread with a stack overflow unless its stack has 1536 bytes
// left. It is called before a lock is taken that others wait for, so that the
// stack does not run out while it is held.
func Headroom()

// StopRoom is Headroom for 512 bytes: what a green thread needs to stop.
func StopRoom()

// ParkRoom is Headroom for 688 bytes: what a green thread needs to wait for
// somebody outside of its scheduler.
func ParkRoom()

// Relax tells the CPU that the caller spins (PAUSE, YIELD).
func Relax()

// Cycles returns the CPU's time stamp counter, in ticks of unspecified
// length. It does not order the instructions around it.
func Cycles() uint64

// getgReg returns the register that ABIInternal keeps g in.
func getgReg() uintptr

// enter is the first code of a child, and of a thread that a fault handler
// sends back to its beginning. Only assembly calls it.
//
//lint:ignore U1000 called by assembly
func enter()

// childMain is the first Go code of a child; clone calls it through its ABI0
// wrapper, which loads g from where the entry code has put it.
//
//go:nosplit // runs before anything has looked at the stack's bounds; keep the first frame checkable by eye
//lint:ignore U1000 called by assembly
func childMain(t *TCB) {
	(*(*func(*TCB))(unsafe.Pointer(&t.Entry)))(t)
}
