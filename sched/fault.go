package sched

import (
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp"
)

// domain is what package lwp asks when a worker faults: a fiber's fault ends
// the fiber. The handler sends the worker to the end of the fiber's stack, where
// it goes on as if the function had returned.
var domain = lwp.Domain{
	Stack: stackOf, Faulted: faulted, Exit: Exit,
	Enter: enterParker, Await: awaitParker, Signal: signalParker, Cancel: cancelParker, Call: callOn, Keep: keepFault,
}

func stackOf(sp uintptr) (lo, hi uintptr) {
	w := self()
	if w == nil || w.idle() || w.inside != 0 {
		return 0, 0 // a fault with the queue's lock held is the worker's, and the end of the process
	}
	if lo, hi = w.running().stack(); sp < lo || sp >= hi {
		return 0, 0
	}
	return lo, hi + ownRoom // the size that was asked for
}

func faulted(name []byte) (pc, sp uintptr) {
	w := self()
	f := w.running()
	f.flags |= hasFaulted // what the fault has interrupted does not go on
	if f.flags&hasName != 0 {
		copy(name, f.name[:])
	}
	return asm.FaultedPC(), uintptr(unsafe.Pointer(f)) - ownRoom - asm.StartRoom
}
