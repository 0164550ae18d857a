package lwp

import (
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// A Domain is what this package asks of a scheduler that runs green threads,
// on stacks of its own, on a thread: their faults and exits end them, and not
// the thread. It is a package variable, and its functions are freestanding.
type Domain struct {
	// Stack returns the bounds of the green thread's stack that sp lies on, or
	// zeros where it is on none.
	Stack func(sp uintptr) (lo, hi uintptr)

	// Faulted says that the green thread that runs has faulted, and returns
	// where the thread goes on: see asm.FaultedPC. It can write a name into the
	// Fault. What it makes the thread run calls HoldFault. It runs on the signal
	// stack; or, for Abort, on the green thread's, and its result is not used.
	Faulted func(name []byte) (pc, sp uintptr)

	// Exit ends the green thread that runs.
	Exit func()

	// What follows is how a green thread waits for somebody else's Signal, and is
	// in no deadlock meanwhile. Enter notes the one that runs in p.Green, or
	// reports that none does; Await, Signal and Cancel are what Parker says of them.
	Enter  func(p *Parker) bool
	Await  func(p *Parker, d futex.Deadline, reason string) bool
	Signal func(p *Parker)
	Cancel func(p *Parker)

	// Call calls fn(arg) on the thread's own stack; fn does not Await.
	Call func(fn func(unsafe.Pointer), arg unsafe.Pointer)

	// Keep is KeepFault for the green thread that runs, if one does.
	Keep func(f *Fault) *Fault
}

// SetDomain sets the Domain of the calling thread.
//
// Context: thread; d is a package variable.
// Errors: ErrNotThread.
func SetDomain(d *Domain) error {
	c := current()
	if c == nil {
		return ErrNotThread
	}
	c.domain = uintptr(unsafe.Pointer(d))
	return nil
}

// HoldFault returns the last Fault of the calling thread, or of its green
// threads, off the Go heap, until KeepFault, ReportFault or DropFault takes it;
// nil if there was none.
//
// Context: thread, in an exit hook; green thread.
func HoldFault() *Fault {
	c := current()
	if c.count == 0 && c.domain == 0 {
		return nil
	}
	f := allocFault()
	if f == nil {
		return &lostFault
	}
	*f = *c.fault
	return f
}

// KeepFault turns a Fault that is held into one for the caller of a Join. A
// goroutine gets a copy on the heap, with the reason found out. A thread has
// no heap: it gets f itself, and gives back the one that it got before.
func KeepFault(f *Fault) *Fault {
	if c := current(); c != nil {
		c.dropJoined()
		c.joined = uintptr(unsafe.Pointer(f))
		return f
	}
	kept := f
	f = new(Fault)
	*f = *kept
	freeFault(kept)
	f.classify()
	return f
}

// ReportFault takes a Fault that is held and writes it to standard error, as
// that of a detached thread is, unless a hook has been told of it.
func ReportFault(f *Fault) {
	if asm.Current() == nil {
		KeepFault(f).report()
		return
	}
	f.report()
	freeFault(f)
}

// DropFault takes a Fault that is held and forgets it.
func DropFault(f *Fault) { freeFault(f) }

// Supported says whether threads can be made in this program.
//
// Context: goroutine.
// Errors: ErrRace; *UnsupportedError.
func Supported() error { return ready() }
