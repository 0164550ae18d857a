//go:build linux && (amd64 || arm64)

package asm

import (
	"syscall"
	"unsafe"
)

// ProcessArgs are the arguments of CloneProcess: a system call and its
// arguments, as Clone2 or Clone3 fills them in, and what the child runs as.
type ProcessArgs struct {
	Trap               uintptr
	A0, A1, A2, A3, A4 uintptr

	TCB   uintptr // what the child runs as; 0: its process exits at once, with status 0
	Twice uintptr // not 0: the child returns from CloneProcess too, on the caller's stack

	Open uint64 // signals that are left as they are, bit n-1 for signal n; the others are blocked
}

// Clone3Args is the kernel's struct clone_args, clone3(2).
type Clone3Args struct {
	Flags      uint64
	PIDFD      uint64 // *int32 for CLONE_PIDFD
	ChildTID   uint64
	ParentTID  uint64
	ExitSignal uint64
	Stack      uint64 // its lowest byte
	StackSize  uint64
	TLS        uint64
	SetTID     uint64 // *int32, the innermost namespace's first
	SetTIDSize uint64
	Cgroup     uint64 // descriptor for CLONE_INTO_CGROUP
}

const sysClone3 = 435 // on both ports

// Clone3 makes a a call of clone3(2). c must stay in place until the call.
func (a *ProcessArgs) Clone3(c *Clone3Args) {
	a.Trap, a.A0, a.A1 = sysClone3, uintptr(unsafe.Pointer(c)), unsafe.Sizeof(*c)
}

// Clone2 makes a a call of clone(2). stack is the child's first SP.
func (a *ProcessArgs) Clone2(flags, stack, parentTID, childTID, tls uintptr) {
	a.Trap, a.A0, a.A1, a.A2 = syscall.SYS_CLONE, flags, stack, parentTID
	a.A3, a.A4 = cloneOrder(childTID, tls)
}

// CloneProcess creates a task by clone(2) or clone3(2). As with Clone, all
// signals but a.Open are blocked around the call, the child starts with that
// mask, and the caller's is as before when the call returns. The child
// has a.TCB.G as its g. It runs a.TCB.Entry on the stack that the system call
// was given, or with a.Twice set it returns here, with a pid of 0: then it has
// the caller's frames, which must be a copy (no CLONE_VM).
//
// The result is the child's ID as the caller's PID namespace sees it, or an errno.
//
// Source: clone(2), vfork(2), signal(7).
//
//go:noescape
func CloneProcess(a *ProcessArgs) (pid, errno uintptr)

// CloneProcessBlocking is CloneProcess for goroutines: it tells the runtime of
// the system call, so that the collector and other goroutines do not wait for
// the copy of the page tables, or for a child with CLONE_VFORK.
//
//go:nosplit // the frame that entersyscall notes must stay; a child that returns here has another g
func CloneProcessBlocking(a *ProcessArgs) (pid, errno uintptr) {
	entersyscall()
	pid, errno = CloneProcess(a)
	if pid == 0 && errno == 0 {
		return // the child, with a.Twice: the runtime is the parent's
	}
	exitsyscall()
	return
}

// The runtime's own ends of a system call that can block, which it keeps
// reachable by these names.
//
//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// CloneProcessHere is CloneProcess with a.Twice for a goroutine: g, the G of
// a.TCB, gets the bounds of the goroutine's stack, which the child goes on
// with. guard is Layout.Guard.
//
//go:nosplit // the goroutine's stack must not move between the look at its bounds and the call
func CloneProcessHere(a *ProcessArgs, g *G, guard uintptr) (pid, errno uintptr) {
	own := (*G)(codeAt(Getg()))
	g.StackLo, g.StackHi = own.StackLo, own.StackHi
	g.StackGuard0, g.StackGuard1 = own.StackLo+guard, own.StackLo+guard
	return CloneProcessBlocking(a)
}

// Room grows a goroutine's stack, if need be, so that 32 KiB of it are free.
func Room()

// ClearSignals gives every signal that has a handler its default action, as
// CLONE_CLEAR_SIGHAND does. It is for a process that shares no handlers.
func ClearSignals() {
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		var sa sigaction
		if rtSigaction(sig, nil, &sa) == 0 && sa.handler > 1 {
			rtSigaction(sig, &sigaction{}, nil)
		}
	}
}

// EnterFaults installs, in a process whose handlers were cleared, the entry
// that InstallFaultEntry has installed in its parent, for the two signals that
// mistakes in compiled code cause.
func EnterFaults() {
	for _, sig := range [...]syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS} {
		if sa := &installed[sig]; sa.handler != 0 {
			rtSigaction(sig, sa, nil)
		}
	}
}

// installed are the actions that InstallFaultEntry has installed.
var installed [65]sigaction

// HasFaultEntry says whether our entry is what sig is handled by.
func HasFaultEntry(sig syscall.Signal) bool {
	var sa sigaction
	return rtSigaction(sig, nil, &sa) == 0 && sa.handler == sigEntryPC
}
