package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// A fiber that waits at an lwp.Parker waits for the bit granted of its word, as
// one at a primitive, or for its timer. The signal can come from anywhere: a
// goroutine, a thread, a fiber of this or another scheduler. It comes once, and is
// remembered if the time is up before it. core.blocked counts the fiber from Enter to
// the signal or Cancel: somebody outside will end the wait, so it is in no
// deadlock, and Close waits for it. That is also why whoever signals can rely on
// the core: it is not closed while the fiber waits.

// enterParker notes the running fiber in p, or reports that none runs.
func enterParker(p *lwp.Parker) bool {
	w := self()
	if w == nil || w.idle() {
		return false
	}
	p.Green = w.current
	w.core.blocked.Add(1)
	return true
}

func cancelParker(p *lwp.Parker) { (*fiber)(pointer(p.Green)).core().blocked.Add(-1) }

// awaitParker is Parker.Await of the running fiber.
func awaitParker(_ *lwp.Parker, d futex.Deadline, reason string) bool {
	at := int64(0)
	if d != futex.Never {
		at = max(d.Monotonic(), 1)
	}
	return self().running().awaitSignal(at, reason)
}

//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) awaitSignal(at int64, reason string) bool {
	me, until := self(), uint64(granted)
	e := entry{owner: uintptr(unsafe.Pointer(f))}
	if at != 0 {
		until |= fired
		me.core.arm(me, &e, at)
	}
	word := atomic.LoadUint64(&f.word)
	for ; word&until == 0; word = atomic.LoadUint64(&f.word) {
		f.stop(parked, reason, me.clock)
		to := me.next()
		if asm.SwitchIf(&f.Context, &to.Context, &f.word, word, word|asleep) {
			me = self()
			continue
		}
		me.putBack(to)
		me.goesOn(f)
	}
	if at != 0 {
		me.core.disarm(me, &e)
	}
	atomic.AndUint64(&f.word, ^(fired | word&granted))
	return word&granted != 0
}

// signalParker is Parker.Signal for a fiber, wherever it is called.
func signalParker(p *lwp.Parker) {
	if w := self(); w != nil {
		w.call(signalParkerFn, unsafe.Pointer(p))
		return
	}
	signalParkerFn(unsafe.Pointer(p))
}

var signalParkerFn = func(q unsafe.Pointer) {
	f := (*fiber)(pointer((*lwp.Parker)(q).Green))
	c := f.core()
	c.users.Add(1) // f waits, so c is open; it may be closed as soon as f goes on
	if f.grant(true) {
		f.makeReady()
	}
	// Not before: see core.finish.
	c.blocked.Add(-1)
	if w := self(); w == nil || w.core != c { // else its worker is not idle
		c.mu.Lock()
		c.settle()
		c.mu.Unlock()
	}
	c.letGo()
}

// callOn is Domain.Call.
//
//go:nosplit // a stack that runs out must not do so here: a value has been sent, and nobody been woken
func callOn(fn func(unsafe.Pointer), arg unsafe.Pointer) { self().call(fn, arg) }

// keepFault is Domain.Keep.
func keepFault(fault *lwp.Fault) *lwp.Fault {
	w := self()
	if w == nil || w.idle() {
		return lwp.KeepFault(fault)
	}
	f := w.running()
	f.inherits(uintptr(unsafe.Pointer(fault)))
	f.flags = f.flags&^hasFault | hasKept
	return fault
}
