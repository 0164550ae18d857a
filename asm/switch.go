//go:build linux && (amd64 || arm64)

package asm

import "unsafe"

// Context is where a green thread stands while it does not run. It lies off
// the Go heap.
type Context struct {
	SP    uintptr // stack pointer, and in its low bits what kind it is of
	BP    uintptr // frame pointer; until the context first runs, the func(unsafe.Pointer) value to call
	Guard uintptr // g.stackguard0 while it runs
}

// Bits of Context.SP.
const (
	fresh   = 1 << iota // the context has never run
	returns             // it is in SwitchReturn, on amd64
)

// ResultAt is how far below a Context the byte lies that SwitchReturn returns.
const ResultAt = 11

// StartRoom is how many bytes below the end of a stack a new context's SP
// lies: the argument of its function is there, which is also the room where a
// function may put what came in a register.
const StartRoom = 32

// Init makes c a context that will call fn(arg) on the stack that ends at hi, a
// multiple of 16, and then what SetEnded was given. fn is a func(unsafe.Pointer) value.
//
//go:nosplit // package sched calls it where a stack must not run out
func (c *Context) Init(hi, fn, arg uintptr) {
	sp := hi - StartRoom
	*(*uintptr)(codeAt(sp + startArg)) = arg
	c.SP, c.BP = sp|fresh, fn
}

// Fresh says whether c has never run.
func (c *Context) Fresh() bool { return c.SP&fresh != 0 }

// Top returns the address of the return address with which c, which is not
// fresh, goes on.
func (c *Context) Top() uintptr { return c.SP &^ (fresh | returns) }

// The switch is called through func values that hold its address, not by name:
// a call by name goes through a wrapper that moves the arguments to the stack
// and reloads g from memory, which took as long as the switch itself. What the
// code finds instead is the register calling convention of compiled Go;
// CheckRuntime verifies it. No argument is kept.
var (
	switchPC, switchIfPC, callOnPC, leavePC, currentPC, workerPC, probeABIPC uintptr // in assembly
	faultedPC                                                                uintptr
)

// funcOf returns the func value for the code whose address lies at pc.
func funcOf[F any](pc *uintptr) F { return *(*F)(unsafe.Pointer(&pc)) }

var (
	switchFn   = funcOf[func(from, to *Context, release *uint32)](&switchPC)
	switchIfFn = funcOf[func(from, to *Context, word *uint64, old, new uint64) bool](&switchIfPC)
	callOnFn   = funcOf[func(c *Context, fn func(unsafe.Pointer), arg unsafe.Pointer)](&callOnPC)
	leaveFn    = funcOf[func(sp uintptr)](&leavePC)
	currentFn  = funcOf[func() *TCB](&currentPC)
	workerFn   = funcOf[func() uintptr](&workerPC)
	probeABIFn = funcOf[func(a, b, c, d, e uintptr) uintptr](&probeABIPC)
)

// Switch saves the caller's context in from, sets *release to zero, and
// continues to. It returns when somebody switches to from, maybe on another
// thread. The store comes after the save and is a release: whoever finds
// *release zero can switch to from.
//
// Go keeps nothing in registers across a call but the stack pointer, the frame
// pointer and g, so nothing else is saved; g is the thread's and stays.
// MXCSR, the x87 control word and FPCR are the thread's too.
//
// Context: thread.
//
//go:nosplit // callers hold locks, which an overflow would keep
func Switch(from, to *Context, release *uint32) { switchFn(from, to, release) }

// SwitchIf is Switch to to if *word is old, which it replaces by new: when the
// new value is seen, from is saved and can be switched to. Otherwise it returns
// false at once. The exchange orders what comes before and after it.
//
// Context: thread.
//
//go:nosplit // as Switch
func SwitchIf(from, to *Context, word *uint64, old, new uint64) bool {
	return switchIfFn(from, to, word, old, new)
}

// CallOn calls fn(arg) on the stack of c, which is not running, below what is
// in use there. fn must not switch. c stays as it was.
//
// Context: thread.
//
//go:nosplit // package sched calls it where a stack must not run out
func CallOn(c *Context, fn func(unsafe.Pointer), arg unsafe.Pointer) { callOnFn(c, fn, arg) }

// Leave gives up the calling context's frames and ends it as a return from its
// function does; hi is the end of its stack.
//
// Context: thread.
func Leave(hi uintptr) { leaveFn(hi - StartRoom) }

// FaultedPC is where a fault handler sends a context whose frames are given up:
// with SP at hi-StartRoom the context ends as by Leave, g loaded anew.
func FaultedPC() uintptr { return faultedPC }

// ended is a func(uintptr) (*Context, *uint32) value.
//
//lint:ignore U1000 read by assembly
var ended uintptr

// SetEnded sets, once, what runs on the stack of a context whose function has
// returned. It gets TCB.Worker, says where the thread goes on, and names a word
// that becomes zero, by a release, when the stack is no longer in use.
func SetEnded(fn *func(worker uintptr) (next *Context, left *uint32)) {
	ended = *(*uintptr)(unsafe.Pointer(fn))
}

// Current returns the TCB of the calling thread, or nil when the caller is not
// one of our threads. It costs about a nanosecond, and is safe anywhere.
//
//go:nosplit // package lwp calls it where a stack must not run out
func Current() *TCB { return currentFn() }

// Worker returns TCB.Worker of the calling thread, or 0 when the caller is not
// one of our threads.
//
//go:nosplit // package sched calls it where a stack must not run out
func Worker() uintptr { return workerFn() }

// conventionHolds says whether arguments and results are in the registers in
// which the code above expects them.
func conventionHolds() bool {
	n, err := returned(4321)
	return probeABIFn(1, 20, 300, 4000, 50000) == 54321 && n == 54321 && err == nil
}

//go:noinline
func returned(n int) (int, error) { return Return(n+50000, nil) }
