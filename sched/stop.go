package sched

import (
	"sync/atomic"
	"time"
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp"
)

// Yield lets every other ready fiber of the caller's worker run before the
// caller goes on.
//
// Context: fiber; elsewhere it is lwp.Yield.
func Yield() { asm.Yield() }

// yield is Yield in full.
func yield() {
	w := self()
	if w == nil || w.idle() {
		lwp.Yield()
		return
	}
	if w.tick--; w.tick == 0 {
		w.call(pollFn, unsafe.Pointer(w))
	}
	f := w.running()
	if f.flags&pinned != 0 || w.bound != 0 {
		w.yieldBound(f)
		return
	}
	// The lock is held until f is saved: the switch gives it back. Before that
	// a thief must not find f in the queue.
	w.enterTurning()
	to := w.turn(f)
	w.feeds()
	w.setRunning(to)
	asm.Switch(&f.Context, &to.Context, &w.inside)
}

// YieldTo is Yield with h next, if h is ready on the caller's worker, and
// reports whether it is. Otherwise it is Yield.
//
// Context: fiber.
// Errors: ErrNotFiber, ErrNoFiber, ErrJoined.
func YieldTo(h Fiber) (bool, error) {
	w := self()
	if w == nil || w.idle() {
		return false, ErrNotFiber
	}
	to, err := h.lookup()
	if err != nil {
		return false, err
	}
	f := w.running()
	w.enter()
	if to != f && to.queuedOn(w) && atomic.LoadUint64(&to.serial) == h.serial && w.tick > 1 {
		w.tick--
		w.remove(to)
		release := &w.inside
		if f.flags&pinned == 0 {
			w.push(f)
			w.feeds()
		} else { // thieves must not see it
			w.leave()
			w.bind(f)
			release = &w.left
		}
		w.setRunning(to)
		asm.Switch(&f.Context, &to.Context, release)
		return true, nil
	}
	w.leave()
	Yield()
	return false, nil
}

// queuedOn says whether f, which is not the caller, is in w's queue; on w, under
// its lock.
//
//go:nosplit // an overflow must not keep the lock
func (f *fiber) queuedOn(w *worker) bool {
	return atomic.LoadUint32(&f.state) == runnable && f.worker == w.loopLink && f.flags&pinned == 0
}

// yieldBound is Yield where pinned fibers are concerned: they have a list of
// their own, which thieves do not see, and which takes turns with the queue.
func (w *worker) yieldBound(f *fiber) {
	w.enter()
	to := w.loop
	if w.bound != 0 && (f.flags&pinned == 0 || !w.any()) {
		to = w.nextBound()
	} else if w.any() {
		to = w.oldest()
	}
	release := &w.inside
	if f.flags&pinned == 0 {
		w.push(f)
		w.feeds()
	} else {
		w.leave()
		w.feeds()
		if to == w.loop {
			return // nobody else
		}
		release = &w.left
		w.bind(f)
	}
	w.setRunning(to)
	asm.Switch(&f.Context, &to.Context, release)
}

// Park suspends the calling fiber until somebody calls Unpark for it. If that
// has been done since the last Park returned, it returns at once: one Unpark is
// remembered, more are not. reason says in reports what the fiber waits for; it
// is a constant, or at least stays in memory as long as the fiber.
//
// Context: fiber; elsewhere it does nothing.
// Ordering: the Unpark happens before Park returns.
func Park(reason string) {
	w := self()
	if w == nil || w.idle() {
		return
	}
	f := w.running()
	for {
		word := atomic.LoadUint64(&f.word)
		if word&token != 0 {
			atomic.AndUint64(&f.word, ^uint64(token))
			return
		}
		f.stop(parked, reason, w.clock)
		to := w.next()
		if asm.SwitchIf(&f.Context, &to.Context, &f.word, word, word|waiting) {
			return
		}
		w.putBack(to)
		w.goesOn(f)
	}
}

// ParkFor is Park with a bound on the wait, and reports whether there was an Unpark.
//
// Context: fiber; elsewhere it is lwp.Sleep.
func ParkFor(reason string, d time.Duration) bool {
	return parkFor(reason, d, token)
}

// Sleep suspends the calling fiber for at least d. An Unpark meanwhile is kept
// for the next Park.
//
// Context: fiber; elsewhere it is lwp.Sleep.
// Source: CLOCK_MONOTONIC in clock_gettime(2).
func Sleep(d time.Duration) {
	w := self()
	if w == nil || w.idle() {
		lwp.Sleep(d)
		return
	}
	if d <= 0 {
		Yield()
		return
	}
	parkFor("sleep", d, 0)
}

// parkFor waits for d or one of the bits of until, token or none, and reports
// whether it was that.
func parkFor(reason string, d time.Duration, until uint64) bool {
	w := self()
	if w == nil || w.idle() {
		lwp.Sleep(d)
		return false
	}
	f := w.running()
	bits, state := uint64(asleep), sleeping
	if until != 0 {
		bits, state = asleep|waiting, parked
		if atomic.LoadUint64(&f.word)&token != 0 {
			atomic.AndUint64(&f.word, ^uint64(token))
			return true
		}
	}
	asm.StopRoom()
	e := entry{owner: uintptr(unsafe.Pointer(f))}
	w.core.armIn(w, &e, int64(d))
	for {
		word := atomic.LoadUint64(&f.word)
		if word&(fired|until) != 0 {
			break
		}
		f.stop(state, reason, w.clock)
		to := w.next()
		if asm.SwitchIf(&f.Context, &to.Context, &f.word, word, word|bits) {
			// Maybe on another worker now. Whoever made f ready has taken
			// waiting and asleep away.
			break
		}
		w.putBack(to)
		w.goesOn(f)
	}
	return f.woken(&e, until)
}

// woken ends a wait with a timer: it disarms the timer and finds out what the
// wait has ended by. waiting and asleep are gone by now.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) woken(e *entry, until uint64) bool {
	w := self()
	if atomic.LoadUint64(&f.word)&fired == 0 {
		w.core.disarm(w, e)
	}
	// The timer fires under the lock that disarm takes: fired does not come any more.
	old := atomic.AndUint64(&f.word, ^(fired | until))
	if until == 0 {
		return false
	}
	return old&fired == 0 || old&token != 0
}

// Unpark lets h go on that is in Park, or has its next Park return at once.
//
// Context: anywhere.
// Errors: ErrNoFiber; ErrJoined for one whose slot is free; none for one that
// has ended and is not joined yet.
// Ordering: Unpark happens before the return of the Park that it ends.
func (h Fiber) Unpark() error {
	f, err := h.lookup()
	if err != nil {
		return err
	}
	w := self()
	if w != nil && w.core == f.core() {
		ready, err := h.wake(f)
		if ready {
			w.readies(f)
		}
		return err
	}
	c := f.hold() // even a compare-and-swap that fails wants memory to write to
	if c == nil {
		return ErrJoined
	}
	ready, err := h.wake(f)
	if ready {
		if w != nil {
			w.call(deliverFn, unsafe.Pointer(f))
		} else {
			f.deliver()
		}
	}
	c.letGo()
	return err
}

// wake does what Unpark does to h's word, and reports whether f now belongs to
// the caller, who makes it ready.
func (h Fiber) wake(f *fiber) (ready bool, err error) {
	for {
		word := atomic.LoadUint64(&f.word)
		if !h.mine(word) {
			return false, ErrJoined
		}
		if word&waiting == 0 {
			if word&token != 0 || atomic.CompareAndSwapUint64(&f.word, word, word|token) {
				return false, nil
			}
			continue
		}
		next := word &^ waiting
		if word&asleep != 0 { // a ParkFor: it looks at the token
			next = next&^asleep | token
		}
		if atomic.CompareAndSwapUint64(&f.word, word, next) {
			return true, nil
		}
	}
}

// fire is what a blocking call does to the fiber that waits for it.
func (f *fiber) fire() {
	if f.fired() {
		f.makeReady()
	}
}

// makeReady makes f ready, which belongs to the caller, wherever that runs.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) makeReady() {
	w := self()
	if w != nil && w.core == f.core() {
		w.readies(f)
		return
	}
	if c := f.hold(); c != nil { // else it was in a deadlock, and Close has ended that
		if w != nil {
			w.call(deliverFn, unsafe.Pointer(f))
		} else {
			f.deliver()
		}
		c.letGo()
	}
}
