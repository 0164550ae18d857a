package freestanding

import (
	"reflect"
	"runtime"
	"strings"
)

// offsetM is the offset of m in the runtime's g. What reads it is about to use
// the thread's m, and a thread of ours has none.
const offsetM = 48

// Reason says what a function needs that a freestanding thread does not have.
type Reason uint8

// The reasons.
const (
	RuntimeState     Reason = iota // anything else that looks at g.m
	HeapAllocation                 // new, make, append, string concatenation, conversion to an interface
	ChannelOperation               // send, receive, close, select
	MapOperation                   // insertion, iteration, clear, make
	GoStatement                    // go
	DeferStatement                 // defer in a loop, or more than eight
	Panic                          // panic, recover, a failure that the runtime reports as fatal
	IndexOutOfRange                // index and slice bounds, slice to array conversion
	DivideByZero                   // integer division
	TypeAssertion                  // x.(T) that fails, or T an interface
	NilDereference                 // a nil pointer in a method value
	SystemCall                     // a system call that tells the scheduler
	Clock                          // time.Now and timers
	Random                         // the runtime's random numbers
	Print                          // print, println
	Scheduler                      // Gosched, Sleep, semaphores, pinning
	RuntimeLock                    // a lock of the runtime
	SystemStack                    // code that runs on the system stack
	ForeignCode                    // C
	Detector                       // calls of a race, memory or address detector
	Contention                     // a lock of package sync that is not free
	WriteBarrier                   // a pointer store while the collector marks
)

var reasonNames = [...]string{"RuntimeState", "HeapAllocation", "ChannelOperation", "MapOperation", "GoStatement",
	"DeferStatement", "Panic", "IndexOutOfRange", "DivideByZero", "TypeAssertion", "NilDereference", "SystemCall", "Clock",
	"Random", "Print", "Scheduler", "RuntimeLock", "SystemStack", "ForeignCode", "Detector", "Contention", "WriteBarrier"}

func (r Reason) String() string { return reasonNames[r] }

// A rule gives the reason for functions whose name begins with prefix. The
// first that fits counts.
type rule struct {
	prefix string
	reason Reason
}

// entries name the reason by the first function of the runtime that is called:
// it says what the source does.
var entries = []rule{
	{"runtime.newproc", GoStatement},
	{"runtime.chan", ChannelOperation},
	{"runtime.closechan", ChannelOperation},
	{"runtime.makechan", ChannelOperation},
	{"runtime.select", ChannelOperation},
	{"runtime.block", ChannelOperation},
	{"runtime.map", MapOperation},
	{"runtime.makemap", MapOperation},
	{"internal/runtime/maps.fatal", Panic},
	{"internal/runtime/maps.", MapOperation},
	{"runtime.defer", DeferStatement},
	{"runtime.typeAssert", TypeAssertion},
	{"runtime.interfaceSwitch", TypeAssertion},
	{"runtime.assertE2I", TypeAssertion},
	{"runtime.panicIndex", IndexOutOfRange},
	{"runtime.panicSlice", IndexOutOfRange},
	{"runtime.panicBounds", IndexOutOfRange},
	{"runtime.goPanic", IndexOutOfRange},
	{"runtime.panicExtend", IndexOutOfRange},
	{"runtime.panicdivide", DivideByZero},
	{"runtime.panicdottype", TypeAssertion},
	{"runtime.panicnildottype", TypeAssertion},
	{"runtime.panicmem", NilDereference},
	{"runtime.sigpanic", NilDereference},
	{"runtime.panicwrap", NilDereference},
	{"runtime.panic", Panic},
	{"runtime.gopanic", Panic},
	{"runtime.gorecover", Panic},
	{"runtime.throw", Panic},
	{"runtime.fatal", Panic},
	{"sync.throw", Panic},
	{"sync.fatal", Panic},
	{"internal/sync.throw", Panic},
	{"internal/sync.fatal", Panic},
	{"runtime.print", Print},
	{"runtime.gwrite", Print},
	{"runtime.nanotime", Clock},
	{"runtime.walltime", Clock},
	{"time.Sleep", Scheduler},
	{"time.", Clock},
	{"runtime.rand", Random},
	{"runtime.cheaprand", Random},
	{"runtime.fastrand", Random},
	{"math/rand", Random},
	{"runtime.cgo", ForeignCode},
	{"runtime.race", Detector},
	{"runtime.msan", Detector},
	{"runtime.asan", Detector},
	{"runtime.entersyscall", SystemCall},
	{"runtime.exitsyscall", SystemCall},
	{"syscall.runtime_entersyscall", SystemCall},
	{"runtime.Gosched", Scheduler},
	{"runtime.Goexit", Scheduler},
	{"runtime.LockOSThread", Scheduler},
	{"runtime.UnlockOSThread", Scheduler},
	{"runtime.coro", Scheduler},
	{"runtime.newcoro", Scheduler},
	{"sync.runtime_", Scheduler},
	{"internal/sync.runtime_", Scheduler},
	{"internal/poll.runtime_", Scheduler},
}

// ends name the reason by where the runtime would fault, for calls that are
// not among entries. Those with stop are not followed: what is behind them is
// large, and known.
var ends = []struct {
	rule
	stop bool
}{
	{rule{"runtime.mallocgc", HeapAllocation}, true},
	{rule{"runtime.acquirem", RuntimeState}, false},
	{rule{"runtime.lock2", RuntimeLock}, false},
	{rule{"runtime.unlock2", RuntimeLock}, false},
	{rule{"runtime.lockWithRank", RuntimeLock}, false},
	{rule{"runtime.gopark", Scheduler}, true},
	{rule{"runtime.goready", Scheduler}, true},
	{rule{"runtime.entersyscall", SystemCall}, true},
	{rule{"runtime.reentersyscall", SystemCall}, true},
	{rule{"runtime.exitsyscall", SystemCall}, true},
	{rule{"runtime.asmcgocall", ForeignCode}, true},
	{rule{"runtime.cgocall", ForeignCode}, true},
	{rule{"runtime.race", Detector}, true},
	{rule{"runtime.msan", Detector}, true},
	{rule{"runtime.asan", Detector}, true},
	{rule{"runtime.systemstack", SystemStack}, true},
	{rule{"runtime.mcall", SystemStack}, true},
	{rule{"runtime.newproc", GoStatement}, true},
	{rule{"runtime.rand", Random}, false},
	{rule{"runtime.cheaprand", Random}, false},
	{rule{"runtime.printlock", Print}, false},
	{rule{"runtime.nanotime", Clock}, false},
	{rule{"C code", ForeignCode}, true},
}

// barriers are the runtime's ways of telling the collector of a pointer store.
// Compiled code and the runtime call them while the collector marks only.
var barriers = []string{"runtime.gcWriteBarrier", "runtime.wbMove", "runtime.wbZero", "runtime.wbBufFlush",
	"runtime.bulkBarrierPreWrite", "runtime.atomicwb"}

// exceptional are calls behind a branch that a correct program can be kept
// from taking: mostly by having nobody wait.
var exceptional = []struct {
	rule
	when string
}{
	{rule{"sync.runtime_Sem", Contention}, notFree},
	{rule{"internal/sync.runtime_Sem", Contention}, notFree},
	{rule{"internal/poll.runtime_Sem", Contention}, notFree},
	{rule{"internal/sync.(*Mutex).lockSlow", Contention}, notFree},
	{rule{"internal/sync.(*Mutex).unlockSlow", Contention}, notFree},
	{rule{"internal/sync.runtime_canSpin", Contention}, notFree},
	{rule{"internal/sync.runtime_doSpin", Contention}, notFree},
	{rule{"sync.runtime_notifyListNotify", Contention}, "somebody waits"},
	{rule{"internal/synctest.", Scheduler}, "it belongs to a bubble of testing/synctest"},
}

const notFree = "the lock is not free"

// growing are calls that fault only if what they work on outgrows its room,
// which depends on the data, with what would be too much. Those with buf are
// given a buffer, or 0, as the first argument.
var growing = []struct {
	prefix, when string
	buf          bool
}{
	{"runtime.growslice", "append beyond the capacity", false},
	{"runtime.moveSlice", "append beyond the capacity", false},
	{"runtime.mapassign", "an insertion that makes the map grow", false},
	{"runtime.mapdelete", "deleting the last entry", false},
	{"runtime.concat", "a result above 32 bytes", true},
	{"runtime.slicebytetostring", "a string above 32 bytes", true},
	{"runtime.stringtoslicebyte", "a string above 32 bytes", true},
	{"runtime.stringtoslicerune", "a string above 32 runes", true},
	{"runtime.slicerunetostring", "a string above 32 bytes", true},
	{"runtime.convT16", "a value above 255", false},
	{"runtime.convT32", "a value above 255", false},
	{"runtime.convT64", "a value above 255", false},
	{"runtime.convTstring", "a string that is not empty", false},
	{"runtime.convTslice", "a slice that is not nil", false},
}

// neverReturns tells functions of the runtime from which control does not come back.
func neverReturns(name string) bool {
	if s, ok := strings.CutPrefix(name, "runtime."); ok {
		switch {
		case strings.HasPrefix(s, "panic"):
			return !strings.HasPrefix(s, "panicCheck")
		case strings.HasPrefix(s, "goPanic"), strings.HasPrefix(s, "morestack"), strings.HasPrefix(s, "goexit"):
			return true
		}
		switch s {
		case "gopanic", "throw", "fatal", "fatalthrow", "fatalpanic", "unreachableMethod", "abort", "sigpanic", "sigpanic0", "rethrow", "badmorestackg0", "badsystemstack":
			return true
		}
		return false
	}
	switch name {
	case "internal/runtime/maps.fatal", "sync.throw", "sync.fatal", "internal/sync.throw", "internal/sync.fatal":
		return true
	}
	return false
}

// quiet tells calls that are not worth a line: the stack is checked by its
// depth, and dead code is dead.
func quiet(name string) bool {
	return strings.HasPrefix(name, "runtime.morestack") || name == "runtime.unreachableMethod"
}

// terminal tells functions that are not followed.
func terminal(name string) bool {
	if isBarrier(name) {
		return true
	}
	if isException(name) {
		return true
	}
	for _, e := range ends {
		if e.stop && strings.HasPrefix(name, e.prefix) {
			return true
		}
	}
	return false
}

func isException(name string) bool {
	for _, e := range exceptional {
		if strings.HasPrefix(name, e.prefix) {
			return true
		}
	}
	return false
}

func isBarrier(name string) bool {
	for _, p := range barriers {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// isThreadTest tells functions that return a pointer that is nil on goroutines.
func isThreadTest(name string) bool {
	return name == "lwprt/asm.current" || name == "lwprt/asm.Current"
}

// reasonOf names the reason for a chain of runtime functions.
func reasonOf(path []string) Reason {
	for _, r := range entries {
		if strings.HasPrefix(path[0], r.prefix) {
			return r.reason
		}
	}
	for i := len(path) - 1; i >= 0; i-- {
		for _, e := range ends {
			if strings.HasPrefix(path[i], e.prefix) {
				return e.reason
			}
		}
	}
	return RuntimeState
}

// sources is the directory of the standard library's sources with a slash
// behind it, as it is in this program's line tables; empty with -trimpath.
var sources = func() string {
	file, _ := runtime.FuncForPC(reflect.ValueOf(runtime.GC).Pointer()).FileLine(reflect.ValueOf(runtime.GC).Pointer())
	dir, _, _ := strings.Cut(file, "runtime/mgc.go")
	return dir
}()

// isRuntime tells functions of the runtime, those included that stand in for
// functions of other packages.
func isRuntime(name, file string) bool {
	if strings.HasPrefix(name, "runtime.") || strings.HasPrefix(name, "internal/runtime/") {
		return true
	}
	rest, ok := strings.CutPrefix(file, sources+"runtime/")
	return ok && !strings.Contains(rest, "/")
}

// isLibrary tells functions of the standard library.
func isLibrary(f Frame) bool {
	if sources != "" {
		return strings.HasPrefix(f.File, sources)
	}
	first, _, _ := strings.Cut(f.Func, "/")
	first, _, _ = strings.Cut(first, ".")
	return strings.Contains(" archive bufio bytes cmp compress container context crypto database debug embed encoding errors expvar "+
		"flag fmt go hash html image index internal io iter log maps math mime net os path plugin reflect regexp runtime slices sort "+
		"strconv strings structs sync syscall testing text time unicode unique unsafe vendor weak ", " "+first+" ")
}
