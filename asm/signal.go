//go:build linux && (amd64 || arm64)

package asm

import (
	"syscall"
	"unsafe"
)

// FaultSignals are the signals that an instruction can cause.
var FaultSignals = [...]syscall.Signal{
	syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGSYS,
}

// SigInfo is the head of siginfo_t, sigaction(2).
type SigInfo struct {
	Signo, Errno, Code int32
	_                  int32
	Addr               uintptr
}

// sigaction is the kernel's struct sigaction.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

var (
	previous   [65]uintptr // handlers that sigEntry stands in front of, by signal
	sigEntryPC uintptr
	resumePC   uintptr
)

// ResumePC is where a fault handler sends a thread that is to leave its frames
// behind: with SP at the first frame's place (CloneArgs.Stack) the thread runs
// TCB.Entry and then exits.
func ResumePC() uintptr { return resumePC }

// InstallFaultEntry puts our entry in front of the program's handlers of
// FaultSignals. On our threads it calls TCB.Fault, on the thread's signal
// stack with all signals of the previous handler's mask blocked; on any other
// thread it jumps to the handler that was there, with nothing changed. A
// signal whose action was to be ignored or the default stays as it was.
//
// It returns the errno of the first sigaction that failed.
func InstallFaultEntry() (errno syscall.Errno) {
	for _, sig := range FaultSignals {
		var sa sigaction
		if errno := rtSigaction(sig, nil, &sa); errno != 0 {
			return errno
		}
		if sa.handler <= 1 || sa.handler == sigEntryPC {
			continue
		}
		previous[sig] = sa.handler
		sa.handler = sigEntryPC
		if errno := rtSigaction(sig, &sa, nil); errno != 0 {
			return errno
		}
		installed[sig] = sa
	}
	return 0
}

// ResetSignal gives sig its default action.
func ResetSignal(sig syscall.Signal) { rtSigaction(sig, &sigaction{}, nil) }

func rtSigaction(sig syscall.Signal, act, old *sigaction) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), sigsetSize, 0, 0)
	return errno
}

// sigStack is the kernel's stack_t: in a SigContext the task's signal stack.
type sigStack struct {
	lo, _, size uintptr // the second are flags
}

// sigMain is the first Go code of the handler, on SigG. It is called through
// its ABI0 wrapper. The bounds are those of the stack that it is on, which in a process
// made by fork or vfork is its maker's, or its copy.
//
//go:nosplit // a frame more to check by eye, none to overflow
//lint:ignore U1000 called by assembly
func sigMain(t *TCB, sig int, info *SigInfo, ctx *SigContext) {
	if g := &t.SigG; ctx.alt.size != 0 && ctx.alt.lo != g.StackLo {
		guard := g.StackGuard0 - g.StackLo
		g.StackLo, g.StackHi = ctx.alt.lo, ctx.alt.lo+ctx.alt.size
		g.StackGuard0, g.StackGuard1 = g.StackLo+guard, g.StackLo+guard
	}
	(*(*func(*TCB, int, *SigInfo, *SigContext))(unsafe.Pointer(&t.Fault)))(t, sig, info, ctx)
}
