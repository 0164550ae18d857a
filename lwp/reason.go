package lwp

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// FaultPolicy says what a fault of a thread does.
type FaultPolicy uint8

const (
	ContainFault FaultPolicy = iota // ends the thread; Join returns the Fault
	CrashOnFault                    // prints the Fault and kills the process with the signal
)

// Reason is why a thread faulted, in terms of Go.
type Reason uint8

// Reasons. Most are calls into a Go runtime that does not know the thread.
const (
	Unknown            Reason = iota
	NilDereference            // of an address below 4096
	BadAddress                // of any other address
	StackOverflow             // the stack is too small: Attr.StackSize
	DivideByZero              // integer division
	IndexOutOfRange           // or slice bounds, or a conversion to an array
	Panic                     // panic, or a failed type assertion
	HeapAllocation            // new, make, append, closure, string or conversion that escapes
	ChannelOperation          // send, receive, close, select
	MapOperation              // growth, range, clear, concurrent use
	GoStatement               // go, runtime.Gosched, goroutine parking
	LockContention            // a lock of package sync that is held
	DeferStatement            // in a loop, or more than eight
	BlockingSyscall           // a system call that tells the scheduler
	SystemStack               // runtime work on its own stack
	WriteBarrier              // a pointer store that cannot be let through
	RuntimeCall               // any other call into the runtime
	IllegalInstruction        // or a trap
	BadSystemCall             // seccomp
	Explicit                  // Abort
)

var reasons = [...]struct{ name, advice string }{
	Unknown:            {"unknown", ""},
	NilDereference:     {"nil dereference", ""},
	BadAddress:         {"bad address", "memory that is not mapped, or not yet aligned, or has been freed"},
	StackOverflow:      {"stack overflow", "stacks of threads do not grow; Attr.StackSize sets their size"},
	DivideByZero:       {"integer division by zero", ""},
	IndexOutOfRange:    {"index or slice bounds out of range", ""},
	Panic:              {"panic", "a thread cannot panic; lwp.Abort ends it with a message"},
	HeapAllocation:     {"heap allocation", "threads have no Go heap; use lwp.Arena, or memory that the starter passes"},
	ChannelOperation:   {"channel operation", "channels park goroutines; use package futex"},
	MapOperation:       {"map operation", "a map can be read, not grown, on a thread"},
	GoStatement:        {"call of the goroutine scheduler", "a thread is not a goroutine; lwp.Start starts another thread"},
	LockContention:     {"contended lock of package sync", "it parks goroutines; use package futex"},
	DeferStatement:     {"defer that needs the runtime", "defer in a loop, or more than eight in a function"},
	BlockingSyscall:    {"system call that tells the scheduler", "use unix.RawSyscall"},
	SystemStack:        {"runtime work on the system stack", ""},
	WriteBarrier:       {"write barrier", "a thread may not store pointers into the Go heap"},
	RuntimeCall:        {"call into the Go runtime", "the runtime does not know the thread"},
	IllegalInstruction: {"illegal instruction or trap", ""},
	BadSystemCall:      {"system call refused by seccomp", ""},
	Explicit:           {"abort", ""},
}

func (r Reason) String() string { return reasons[r].name }

// A Fault is what a thread died of. It is the error that Join returns.
//
// To a thread that joins, Reason is what the signal alone tells, and the Fault
// is good until 64 more have been returned to threads.
type Fault struct {
	Reason    Reason
	Signal    syscall.Signal // 0 for Explicit
	Code      int            // si_code, sigaction(2)
	Addr      uintptr        // the address that was accessed
	PC        uintptr        // of the instruction
	SP        uintptr
	StackSize int // of the thread, in bytes
	TID       int
	Thread    Thread

	inGuard     bool
	told        bool // a hook has had it
	name        [16]byte
	nmsg        int
	msg         [120]byte
	link, outer uintptr // SigContext.Links
	n           int
	pcs         [64]uintptr // return addresses by frame pointers, innermost first
}

// siKernel as si_code says that the address is not known: a non-canonical one.
const siKernel = 0x80

// guess is classify without the runtime's tables.
func (f *Fault) guess() {
	switch {
	case f.Reason == Explicit:
	case f.Signal == unix.SIGFPE:
		f.Reason = DivideByZero
	case f.Signal == unix.SIGILL, f.Signal == unix.SIGTRAP:
		f.Reason = IllegalInstruction
	case f.Signal == unix.SIGSYS:
		f.Reason = BadSystemCall
	case f.inGuard:
		f.Reason = StackOverflow
	case f.Signal == unix.SIGSEGV && f.Code != siKernel && f.Addr < 4096:
		f.Reason = NilDereference
	default:
		f.Reason = BadAddress
	}
}

// byEntry maps the runtime function that the thread's code called to a reason:
// the first prefix that fits.
var byEntry = []struct {
	prefix string
	reason Reason
}{
	{"runtime.morestack", StackOverflow},
	{"runtime.panicdivide", DivideByZero},
	{"runtime.panicBounds", IndexOutOfRange},
	{"runtime.panicIndex", IndexOutOfRange},
	{"runtime.panicSlice", IndexOutOfRange},
	{"runtime.goPanicIndex", IndexOutOfRange},
	{"runtime.goPanicSlice", IndexOutOfRange},
	{"runtime.panicExtend", IndexOutOfRange},
	{"runtime.gcWriteBarrier", WriteBarrier},
	{"gcWriteBarrier", WriteBarrier},
	{"runtime.wb", WriteBarrier},
	{"runtime.typedmemmove", WriteBarrier},
	{"runtime.typedslicecopy", WriteBarrier},
	{"runtime.memclrHasPointers", WriteBarrier},
	{"runtime.bulkBarrier", WriteBarrier},
	{"runtime.atomicwb", WriteBarrier},
	{"sync/atomic.", WriteBarrier},
	{"runtime.chan", ChannelOperation},
	{"runtime.makechan", ChannelOperation},
	{"runtime.closechan", ChannelOperation},
	{"runtime.select", ChannelOperation},
	{"runtime.block", ChannelOperation},
	{"runtime.map", MapOperation},
	{"runtime.makemap", MapOperation},
	{"internal/runtime/maps.", MapOperation},
	{"runtime.newproc", GoStatement},
	{"runtime.Gosched", GoStatement},
	{"runtime.gopark", GoStatement},
	{"runtime.mcall", GoStatement},
	{"time.Sleep", GoStatement},
	{"runtime.timeSleep", GoStatement},
	{"sync.runtime_", LockContention},
	{"internal/sync.", LockContention},
	{"sync.", LockContention},
	{"runtime.deferproc", DeferStatement},
	{"runtime.entersyscall", BlockingSyscall},
	{"runtime.reentersyscall", BlockingSyscall},
	{"syscall.", BlockingSyscall},
	{"runtime.gopanic", Panic},
	{"runtime.panic", Panic},
	{"runtime.goPanic", Panic},
	{"runtime.gorecover", Panic},
	{"runtime.systemstack", SystemStack},
}

// classify finds the reason from the calls that led to the fault.
//
// Context: goroutine.
func (f *Fault) classify() {
	f.guess()
	if f.Signal != unix.SIGSEGV || f.Reason == StackOverflow {
		return
	}
	var names []string // of the runtime, innermost first, down to the thread's code
	frames := runtime.CallersFrames(f.callers())
	for {
		fr, more := frames.Next()
		if !ofRuntime(fr.Function) {
			break
		}
		names = append(names, fr.Function)
		if !more {
			break
		}
	}
	if len(names) == 0 {
		return
	}
	f.Reason = RuntimeCall
	for i := len(names) - 1; i >= 0; i-- {
		for _, e := range byEntry {
			if strings.HasPrefix(names[i], e.prefix) {
				f.Reason = e.reason
				return
			}
		}
		if strings.HasPrefix(names[i], "runtime.mallocgc") {
			f.Reason = HeapAllocation
			return
		}
	}
}

// ofRuntime says whether a function is part of the runtime, or one of those
// through which code enters it without meaning to.
func ofRuntime(name string) bool {
	for _, p := range []string{"runtime.", "internal/runtime/", "internal/sync.", "sync.", "sync/atomic.", "syscall.", "time.Sleep", "gcWriteBarrier"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return name == ""
}

// callers returns the stack at the fault as runtime.CallersFrames wants it:
// the PC after each call. The instruction that faulted is no call.
func (f *Fault) callers() []uintptr {
	pcs := []uintptr{f.PC + 1}
	if f.Reason == Explicit {
		return f.pcs[:f.n]
	}
	if fn := runtime.FuncForPC(f.PC); fn != nil {
		switch {
		case strings.HasPrefix(fn.Name(), "runtime.morestack"):
			pcs = append(pcs, f.link, f.outer)
		case asm.Frameless(fn.Entry(), f.PC):
			pcs = append(pcs, f.link)
		}
	} else if f.link != 0 {
		pcs = append(pcs, f.link) // a call of a wild address
	}
	return append(pcs, f.pcs[:f.n]...)
}

// Frames returns the symbolized stack at the fault, innermost first.
//
// Context: goroutine.
func (f *Fault) Frames() *runtime.Frames { return runtime.CallersFrames(f.callers()) }

// Stack returns the stack at the fault as text, two lines a call, the
// innermost first, without what is below the thread's function.
//
// Context: goroutine.
func (f *Fault) Stack() string {
	var b strings.Builder
	f.each(func(fr runtime.Frame) bool {
		fmt.Fprintf(&b, "%s\n\t%s:%d\n", fr.Function, fr.File, fr.Line)
		return true
	})
	return b.String()
}

func (f *Fault) each(do func(runtime.Frame) bool) {
	frames := f.Frames()
	for {
		fr, more := frames.Next()
		if strings.HasPrefix(fr.Function, "lwprt/lwp.(*record).call") || !do(fr) || !more {
			return
		}
	}
}

// Error says in a sentence what happened and where, and what to do instead.
//
// Context: goroutine.
func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "lwp: thread %d", f.TID)
	if name, _, _ := bytes.Cut(f.name[:], []byte{0}); len(name) > 0 {
		fmt.Fprintf(&b, " (%s)", name)
	}
	fmt.Fprintf(&b, ": %s", f.Reason)
	switch {
	case f.Reason == Explicit:
		fmt.Fprintf(&b, ": %s", f.msg[:f.nmsg])
	case f.Reason == StackOverflow:
		fmt.Fprintf(&b, " on a stack of %d bytes", f.StackSize)
	case f.Reason == NilDereference || f.Reason == BadAddress:
		fmt.Fprintf(&b, " %#x", f.Addr)
	}
	f.each(func(fr runtime.Frame) bool {
		if ofRuntime(fr.Function) {
			return true
		}
		fmt.Fprintf(&b, " in %s (%s:%d)", fr.Function, fr.File, fr.Line)
		return false
	})
	if a := reasons[f.Reason].advice; a != "" {
		fmt.Fprintf(&b, ": %s", a)
	}
	return b.String()
}
