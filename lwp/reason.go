package lwp

import (
	"bytes"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
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
	IndexOutOfRange           // or slice bounds, or a conversion of a slice to an array
	Panic                     // panic, or what the runtime panics or stops the program for
	TypeAssertion             // x.(T) that fails, or to an interface type
	HeapAllocation            // new, make, append, closure, string or conversion that escapes
	ChannelOperation          // send, receive, close, select
	MapOperation              // growth, range, clear, concurrent use
	GoStatement               // go, runtime.Gosched, goroutine parking
	ClockOrTimer              // time.Now, time.Sleep, timers
	Printing                  // print, println, packages fmt and log
	LockContention            // a lock of package sync that is held
	SyncPool                  // sync.Pool
	DeferStatement            // in a loop, or more than eight
	BlockingSyscall           // a system call that tells the scheduler
	SystemStack               // runtime work on its own stack
	WriteBarrier              // a pointer store that cannot be let through
	RuntimeCall               // any other call into the runtime
	IllegalInstruction        // or a trap, a breakpoint, a floating-point exception
	BadSystemCall             // seccomp
	Explicit                  // Abort
	HandlerPanic              // panic in a Handler; the caller goes on
)

var reasons = [...]struct{ name, advice string }{
	Unknown:            {"unknown", ""},
	NilDereference:     {"nil dereference", ""},
	BadAddress:         {"bad address", ""},
	StackOverflow:      {"stack overflow", "stacks of threads do not grow; Attr.StackSize sets their size"},
	DivideByZero:       {"integer division by zero", ""},
	IndexOutOfRange:    {"index or slice bounds out of range", ""},
	Panic:              {"panic", "a thread cannot panic or recover; lwp.Abort ends it with a message"},
	TypeAssertion:      {"type assertion", "it failed, or is to an interface type, which the runtime looks up; v, ok := x.(T) does not fail"},
	HeapAllocation:     {"heap allocation", "threads have no Go heap; use lwp.Arena, or memory that the starter passes"},
	ChannelOperation:   {"channel operation", "channels park goroutines; use package futex"},
	MapOperation:       {"map operation", "a thread can look up and overwrite in a map, not grow, range over or clear it"},
	GoStatement:        {"call of the goroutine scheduler", "a thread is not a goroutine; lwp.Start starts another thread, lwp.Yield yields"},
	ClockOrTimer:       {"clock or timer of package time", "use lwp.Sleep and futex.Monotonic"},
	Printing:           {"printing", "print and fmt need the Go runtime; use lwp.Line"},
	LockContention:     {"contended lock of package sync", "it parks goroutines; use package futex"},
	SyncPool:           {"use of sync.Pool", "its caches belong to the scheduler; use lwp.Arena"},
	DeferStatement:     {"defer that needs the runtime", "it is in a loop, or one of more than eight, or the code is not optimized"},
	BlockingSyscall:    {"system call that tells the scheduler", "use unix.RawSyscall"},
	SystemStack:        {"runtime work on the system stack", ""},
	WriteBarrier:       {"write barrier", "a thread may not store pointers into the Go heap"},
	RuntimeCall:        {"call into the Go runtime", "the runtime does not know the thread"},
	IllegalInstruction: {"illegal instruction or trap", ""},
	BadSystemCall:      {"system call refused by seccomp", ""},
	Explicit:           {"abort", ""},
	HandlerPanic:       {"panic in a handler", ""},
}

// String returns the reason in a few words.
//
// Context: goroutine or thread.
func (r Reason) String() string {
	if int(r) >= len(reasons) {
		r = Unknown
	}
	return reasons[r].name
}

// A Fault is what a thread died of. It is the error that Join returns.
//
// To a thread that joins, and to a hook (Attr.OnFault), Reason is what the
// signal alone tells: every call into the runtime but that of a stack overflow
// is a NilDereference there. What a thread that joins gets is good until the
// same thread gets another from a Join, and as long as that thread lives.
type Fault struct {
	Reason    Reason
	Signal    syscall.Signal // 0 for Explicit and HandlerPanic
	Code      int            // si_code, sigaction(2)
	Addr      uintptr        // the address that was accessed
	PC        uintptr        // of the instruction
	SP        uintptr
	StackSize int // of the thread, in bytes
	TID       int
	Thread    Thread

	overflow    bool // in the guard or in morestack
	told        bool // a hook has had it
	green       bool // of a green thread: see Domain
	name        [16]byte
	nmsg        int
	msg         [120]byte
	link, outer uintptr // SigContext.Links
	regs        [len(asm.RegisterNames)]uintptr
	n           int
	pcs         [64]uintptr // return addresses by frame pointers, innermost first
}

// Values of si_code, sigaction(2).
const (
	siKernel   = 0x80 // the address is not known: a non-canonical one
	segvMapErr = 1
	fpeIntDiv  = 1
	lowAddress = 4096 // what lies below is an offset from nil
)

// guess is classify without the runtime's tables. It is freestanding.
func (f *Fault) guess() {
	switch {
	case f.Signal == 0:
	case f.Signal == unix.SIGFPE && f.Code == fpeIntDiv:
		f.Reason = DivideByZero
	case f.Signal == unix.SIGILL, f.Signal == unix.SIGTRAP, f.Signal == unix.SIGFPE:
		f.Reason = IllegalInstruction
	case f.Signal == unix.SIGSYS:
		f.Reason = BadSystemCall
	case f.overflow:
		f.Reason = StackOverflow
	case f.Signal == unix.SIGSEGV && f.Code != siKernel && f.Addr < lowAddress:
		f.Reason = NilDereference
	case f.Signal == unix.SIGSEGV, f.Signal == unix.SIGBUS:
		f.Reason = BadAddress
	}
}

// byEntry maps the functions through which code enters the runtime to reasons:
// the first prefix that fits the outermost function that any fits.
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
	{"runtime.panicdottype", TypeAssertion},
	{"runtime.panicnildottype", TypeAssertion},
	{"runtime.typeAssert", TypeAssertion},
	{"runtime.assertE2I", TypeAssertion},
	{"runtime.interfaceSwitch", TypeAssertion},
	{"runtime.gcWriteBarrier", WriteBarrier},
	{"gcWriteBarrier", WriteBarrier},
	{"runtime.wb", WriteBarrier},
	{"runtime.typedmem", WriteBarrier},
	{"runtime.typedslicecopy", WriteBarrier},
	{"runtime.memclrHasPointers", WriteBarrier},
	{"runtime.bulkBarrier", WriteBarrier},
	{"runtime.atomicwb", WriteBarrier},
	{"sync/atomic.", WriteBarrier},
	{"reflect.typed", WriteBarrier},
	{"runtime.chan", ChannelOperation},
	{"runtime.makechan", ChannelOperation},
	{"runtime.closechan", ChannelOperation},
	{"runtime.select", ChannelOperation},
	{"runtime.block", ChannelOperation},
	{"runtime.map", MapOperation},
	{"runtime.makemap", MapOperation},
	{"internal/runtime/maps.", MapOperation},
	{"sync.(*Map).", MapOperation},
	{"maps.", MapOperation},
	{"runtime.newproc", GoStatement},
	{"runtime.Gosched", GoStatement},
	{"runtime.gopark", GoStatement},
	{"runtime.mcall", GoStatement},
	{"time.Sleep", ClockOrTimer},
	{"time.Now", ClockOrTimer},
	{"time.now", ClockOrTimer},
	{"time.runtimeN", ClockOrTimer},
	{"time.Since", ClockOrTimer},
	{"time.Until", ClockOrTimer},
	{"time.After", ClockOrTimer},
	{"time.New", ClockOrTimer},
	{"time.Tick", ClockOrTimer},
	{"time.newTimer", ClockOrTimer},
	{"runtime.timeSleep", ClockOrTimer},
	{"runtime.nanotime", ClockOrTimer},
	{"runtime.walltime", ClockOrTimer},
	{"fmt.", Printing},
	{"log.", Printing},
	{"runtime.print", Printing},
	{"sync.(*Pool)", SyncPool},
	{"sync.runtime_proc", SyncPool},
	{"sync.", LockContention},
	{"internal/sync.", LockContention},
	{"runtime.defer", DeferStatement},
	{"runtime.entersyscall", BlockingSyscall},
	{"runtime.reentersyscall", BlockingSyscall},
	{"syscall.", BlockingSyscall},
	{"runtime.gopanic", Panic},
	{"runtime.panic", Panic},
	{"runtime.goPanic", Panic},
	{"runtime.gorecover", Panic},
	{"runtime.throw", Panic},
	{"runtime.fatal", Panic},
	{"runtime.mallocgc", HeapAllocation},
	{"runtime.systemstack", SystemStack},
}

// classify finds the reason from the calls that led to the fault.
//
// Context: goroutine.
func (f *Fault) classify() {
	f.guess()
	if f.Reason != NilDereference {
		return // what the runtime dereferences on a thread is g.m, nil
	}
	names := f.calledLibrary()
	if len(names) == 0 || !ofRuntime(names[0]) || plain(names[0]) {
		return
	}
	f.Reason = RuntimeCall
	for i := len(names) - 1; i >= 0; i-- {
		for _, e := range byEntry {
			if !strings.HasPrefix(names[i], e.prefix) {
				continue
			}
			if e.reason == LockContention && slices.ContainsFunc(names[:i], elsewhere) {
				break // a Once that runs something
			}
			f.Reason = e.reason
			if e.reason == LockContention && slices.ContainsFunc(names, fatal) {
				f.Reason = Panic // such as the unlocking of a lock that is not locked
			}
			return
		}
	}
}

// calledLibrary returns the functions of the standard library that were called
// when the fault happened, innermost first, down to the program's own code.
func (f *Fault) calledLibrary() (names []string) {
	f.each(func(fr runtime.Frame) bool {
		if standard(fr) {
			names = append(names, fr.Function)
			return true
		}
		return false
	})
	return names
}

// ofRuntime says whether a function is part of the runtime, or one of those
// through which code enters it without meaning to.
func ofRuntime(name string) bool {
	for _, p := range []string{
		"runtime.", "internal/runtime/", "internal/sync.", "sync.", "sync/atomic.", "syscall.",
		"time.Sleep", "time.now", "time.runtimeN", "time.newTimer", "gcWriteBarrier", "reflect.typed",
	} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return name == ""
}

// plain says whether a function of the runtime is one that needs nothing of
// it: the fault is of what it was given.
func plain(name string) bool {
	for _, p := range []string{
		"mem", "duff", "cmpstring", "strequal", "strhash", "interequal", "nilinterequal", "efaceeq", "ifaceeq",
		"f32", "f64", "c64", "c128", "aeshash", "decoderune", "countrunes",
	} {
		if strings.HasPrefix(name, "runtime."+p) && !strings.HasPrefix(name, "runtime.memclrHas") {
			return true
		}
	}
	return false
}

// elsewhere says whether a function is neither of the runtime nor of package sync.
func elsewhere(name string) bool { return !ofRuntime(name) }

func fatal(name string) bool {
	return strings.HasSuffix(name, ".fatal") || strings.HasSuffix(name, ".throw")
}

// library is the directory of the standard library's source as the program's
// tables have it, with a slash; "" in a program built with -trimpath.
var library = sync.OnceValue(func() string {
	f := runtime.FuncForPC(reflect.ValueOf(runtime.GC).Pointer())
	file, _ := f.FileLine(f.Entry())
	dir, _, _ := strings.Cut(file, "runtime/mgc.go")
	return dir
})

// standard says whether a call is one in the standard library.
func standard(fr runtime.Frame) bool {
	if ofRuntime(fr.Function) {
		return true
	}
	if lib := library(); lib != "" {
		return strings.HasPrefix(fr.File, lib)
	}
	// Built with -trimpath: files are named by import path, and modules of
	// others with @version.
	first, _, _ := strings.Cut(fr.File, "/")
	if strings.HasPrefix(fr.Function, "main.") || strings.ContainsAny(first, ".@<") || strings.Contains(fr.File, "@") {
		return false
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return true
	}
	for _, m := range append(info.Deps, &info.Main) {
		if strings.HasPrefix(fr.File, m.Path+"/") {
			return false
		}
	}
	return true
}

// ours says whether a call is one in this module's own packages for threads.
func ours(fr runtime.Frame) bool {
	for _, p := range []string{"lwprt/lwp.", "lwprt/futex.", "lwprt/tls.", "lwprt/asm.", "lwprt/sched."} {
		if strings.HasPrefix(fr.Function, p) {
			return true
		}
	}
	return false
}

// callers returns the stack at the fault as runtime.CallersFrames wants it:
// the PC after each call. The instruction that faulted is no call.
func (f *Fault) callers() []uintptr {
	pcs := []uintptr{f.PC + 1}
	if f.Signal == 0 {
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

// Registers returns the general registers at the fault as text, four a line;
// nothing without a Signal.
//
// Context: goroutine.
func (f *Fault) Registers() string {
	if f.Signal == 0 {
		return ""
	}
	var b strings.Builder
	for i, name := range asm.RegisterNames {
		end := byte(' ')
		if i%4 == 3 || i == len(f.regs)-1 {
			end = '\n'
		}
		fmt.Fprintf(&b, "%-6s 0x%016x%c", name, f.regs[i], end)
	}
	return b.String()
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
		if slices.Contains(beneath, fr.Function) || !do(fr) || !more {
			return
		}
	}
}

// beneath are the functions that call a thread's function, destructors, hooks.
var beneath = []string{
	"lwprt/lwp.(*record).call", "lwprt/tls.(*Storage).RunDestructors", "lwprt/lwp.(*control).runHooks", "lwprt/lwp.(*control).keepFault",
	"lwprt/asm.run", "lwprt/lwp.(*handler).try",
}

// Error says in a sentence what happened and where, and what to do instead.
//
// Context: goroutine.
func (f *Fault) Error() string {
	var b strings.Builder
	if f.Reason == HandlerPanic {
		b.WriteString("lwp")
	} else if f.green {
		fmt.Fprintf(&b, "lwp: green thread on thread %d", f.TID)
	} else {
		fmt.Fprintf(&b, "lwp: thread %d", f.TID)
	}
	if name, _, _ := bytes.Cut(f.name[:], []byte{0}); len(name) > 0 {
		fmt.Fprintf(&b, " (%s)", name)
	}
	fmt.Fprintf(&b, ": %s", f.Reason)
	switch {
	case f.Signal == 0 && f.nmsg > 0:
		fmt.Fprintf(&b, ": %s", f.msg[:f.nmsg])
	case f.Reason == StackOverflow:
		fmt.Fprintf(&b, " on a stack of %d bytes", f.StackSize)
	case f.Reason == NilDereference && f.Addr != 0:
		fmt.Fprintf(&b, " at offset %d", f.Addr)
	case f.Reason == BadAddress && f.Code == siKernel:
		b.WriteString(", one that no memory can have")
	case f.Reason == BadAddress && f.Signal == unix.SIGBUS:
		fmt.Fprintf(&b, " %#x, a mapping with nothing behind it", f.Addr)
	case f.Reason == BadAddress && f.Code == segvMapErr:
		fmt.Fprintf(&b, " %#x, where nothing is mapped", f.Addr)
	case f.Reason == BadAddress:
		fmt.Fprintf(&b, " %#x, memory that does not allow that access", f.Addr)
	case f.Reason == RuntimeCall:
		if names := f.calledLibrary(); len(names) > 0 {
			fmt.Fprintf(&b, " by %s", names[len(names)-1])
		}
	case f.Reason == IllegalInstruction:
		fmt.Fprintf(&b, " (%v)", f.Signal)
	}
	if fr, ok := f.where(); ok {
		fmt.Fprintf(&b, " in %s (%s:%d)", fr.Function, fr.File, fr.Line)
	} else if f.Reason != Unknown {
		fmt.Fprintf(&b, " at pc %#x", f.PC)
	}
	if a := reasons[f.Reason].advice; f.green && f.Reason == StackOverflow {
		b.WriteString(": stacks of green threads do not grow; their size is set where they are spawned")
	} else if a != "" {
		fmt.Fprintf(&b, ": %s", a)
	}
	return b.String()
}

// where returns the innermost call of the program's own code, which is neither
// the standard library's nor, if there is other code, this module's.
func (f *Fault) where() (at runtime.Frame, ok bool) {
	f.each(func(fr runtime.Frame) bool {
		if fr.PC == 0 || standard(fr) {
			return true
		}
		if !ok || !ours(fr) {
			at, ok = fr, true
		}
		return ours(fr)
	})
	return at, ok
}
