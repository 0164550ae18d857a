package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// A fiber that waits at an lwp.Parker waits for the bit fired of its word, as one
// in Blocking does. The signal can come from anywhere: a goroutine, a thread, a
// fiber of this or another scheduler. core.blocked counts the fiber from Enter to the
// signal or Cancel: somebody outside will end the wait, so it is in no deadlock,
// and Close waits for it. That is also why whoever signals can rely on the core:
// it is not closed while the fiber waits.
//
// The signal and the timer both set fired, so it has to be settled which did, and
// that the other does not do so later, in the middle of another wait. Parker.State
// says who:
//
//	0          -> signalled by Signal, which then fires the fiber
//	           -> timed by arm, with the timer set, under timers.mu
//	timed      -> signalled by Signal, under timers.mu: if the timer is still
//	              set, it removes it and fires the fiber; else the timer has
//	              fired it already, and the fiber will find signalled
//	           -> 0 by the fiber, fired by the timer: the time is up
//	signalled  nobody touches the Parker from the fire on
const timed = 2

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
func awaitParker(p *lwp.Parker, d futex.Deadline, reason string) bool {
	w := self()
	f := w.running()
	if d != futex.Never {
		a := parkerArming{p: uintptr(unsafe.Pointer(p)), d: d}
		w.call(armParkerFn, noescape(unsafe.Pointer(&a)))
		if a.failed {
			// No memory for the timer: the worker sleeps with the fiber.
			w.call(sleepFn, noescape(unsafe.Pointer(&a)))
			return atomic.LoadUint64(&f.word)&fired != 0 && f.takeFired()
		}
	}
	for {
		word := atomic.LoadUint64(&f.word)
		if word&fired != 0 {
			break
		}
		f.stop(parked, reason, w.clock)
		to := w.next()
		if asm.SwitchIf(&f.Context, &to.Context, &f.word, word, word|asleep) {
			break
		}
		w.putBack(to)
		w.goesOn(f)
	}
	f.takeFired()
	return !atomic.CompareAndSwapUint32(&p.State, timed, 0)
}

// takeFired takes the bit fired back.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) takeFired() bool {
	atomic.AndUint64(&f.word, ^uint64(fired))
	return true
}

type parkerArming struct {
	p      uintptr // *lwp.Parker
	d      futex.Deadline
	failed bool
}

var sleepFn = func(a unsafe.Pointer) { lwp.Sleep((*parkerArming)(a).d.Remaining()) }

var armParkerFn = func(q unsafe.Pointer) {
	a := (*parkerArming)(q)
	p := (*lwp.Parker)(pointer(a.p))
	f := (*fiber)(pointer(p.Green))
	at := deadline(a.d.Remaining())
	c := f.core()
	t := &c.timers
	t.mu.Lock()
	if t.n+2 > t.room && t.grow() != 0 {
		a.failed = true
		t.mu.Unlock()
		return
	}
	first := false
	if atomic.CompareAndSwapUint32(&p.State, 0, timed) { // else it is signalled
		t.n++
		t.up(t.n, timer{at, uintptr(unsafe.Pointer(f))})
		t.publish()
		first = f.timer == 1
	}
	t.mu.Unlock()
	if first {
		c.retime(at)
	}
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
	p := (*lwp.Parker)(q)
	f := (*fiber)(pointer(p.Green))
	c := f.core()
	c.users.Add(1) // f waits, so c is open; it may be closed as soon as f goes on
	fire := true
	for !atomic.CompareAndSwapUint32(&p.State, 0, lwp.ParkerSignalled) {
		t := &c.timers
		t.mu.Lock()
		if atomic.LoadUint32(&p.State) == timed {
			fire = f.timer != 0
			done := atomic.CompareAndSwapUint32(&p.State, timed, lwp.ParkerSignalled)
			if done && fire {
				t.remove(f.timer)
			}
			t.mu.Unlock()
			if done {
				break
			}
			fire = true
			continue
		}
		t.mu.Unlock()
	}
	if fire {
		f.fire() // p is gone from here on
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
