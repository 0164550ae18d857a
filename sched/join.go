package sched

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// Join waits until h has ended, then frees its slot. One can join a fiber, once.
//
// Context: fiber, goroutine, or a thread that is no worker. A fiber that joins
// one that is ready on the same worker runs it at once; for one of another
// scheduler it waits in Blocking.
// Errors: ErrNoFiber, ErrSelf, ErrDetached, ErrJoined; a *lwp.Fault if the
// fiber died of one. Outside of fibers ErrDeadlock if nothing can run any more,
// as a *DeadlockError on a goroutine; the fiber can then be joined again.
// Ordering: the end of the fiber happens before Join returns.
func (h Fiber) Join() error { return joinShort(h) }

// join is Join in full.
func join(serial uint64, at uint32) error {
	h := Fiber{serial, link(at)}
	w := self()
	if w == nil || w.idle() || h.at >= region.loops {
		return h.join(w)
	}
	if atomic.LoadUint32(&h.at.fiber().state) != runnable || w.tick <= 2 && !w.pollEarly() {
		return h.join(w)
	}
	// Run it, if it is ours to run: nobody can take it while the lock is held.
	w.enter() // which can hasten
	f, c := w.running(), h.at.fiber()
	word := atomic.LoadUint64(&c.word)
	// In a list other than the queue it cannot be: the tick is 1 while there is any.
	if w.tick > 2 && c.serial == h.serial && c != f && c.queuedOn(w) &&
		word&joinMask == 0 && atomic.CompareAndSwapUint64(&c.word, word, word|uint64(f.link())) {
		w.remove(c)
		f.setState(joining)
		w.tick -= 2 // there and back
		w.setRunning(c)
		asm.Switch(&f.Context, &c.Context, &w.inside)
		return f.joined()
	}
	w.leave()
	return h.join(w)
}

// join is Join of one that does not run at once; w is self.
func (h Fiber) join(w *worker) error {
	if w == nil || w.idle() {
		return h.joinOutside(futex.Never)
	}
	if h.serial == 0 || h.at >= region.loops {
		return ErrNoFiber
	}
	f, c := w.running(), h.at.fiber()
	if _, err := h.lookup(); err != nil {
		return err
	}
	if c == f {
		return ErrSelf
	}
	if c.core() != w.core {
		return h.joinAcross(crossing{h: h})
	}
	for {
		word := atomic.LoadUint64(&c.word)
		if !h.mine(word) {
			return ErrJoined
		}
		switch uint32(word) {
		case 0:
			f.stop(joining, "join", w.clock)
			to := w.next()
			if asm.SwitchIf(&f.Context, &to.Context, &c.word, word, word|uint64(f.link())) {
				self().counts()
				return f.joined()
			}
			w.putBack(to)
			w.goesOn(f)
		case over:
			if atomic.CompareAndSwapUint64(&c.word, word, word&^joinMask|taken) {
				fault := c.takeEnded()
				self().release(c)
				if fault != 0 {
					f.inherits(fault)
				}
				return f.joined()
			}
		case noJoin:
			return ErrDetached
		default:
			return ErrJoined
		}
	}
}

// joined is the end of a Join in which the running fiber slept.
//
//go:nosplit // an overflow must not lose the fault
func joined() error { return self().running().joined() }

// joined is the end of a Join in which f slept.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) joined() error {
	if f.flags&hasFault == 0 {
		return nil
	}
	f.flags = f.flags&^hasFault | hasKept
	return (*lwp.Fault)(pointer(f.fault))
}

// inherits gives f, which joins, the fault that another fiber has died of. It
// is f's until it gets another or ends.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) inherits(fault uintptr) {
	if f.flags&hasKept != 0 {
		self().call(dropFn, pointer(f.fault))
	}
	f.fault = fault
	f.flags = f.flags&^hasKept | hasFault
}

// takeEnded waits until the worker of a fiber that has ended is off its stack,
// which takes it a few instructions, and returns the fault it died of, or 0.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) takeEnded() (fault uintptr) {
	for i := 0; atomic.LoadUint32(&f.state) != gone; i++ {
		if i < 100 {
			asm.Relax()
		} else {
			unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
	if f.flags&hasFault != 0 {
		fault = f.fault
		f.fault = 0
	}
	return fault
}

// joinOutside waits with a futex.
func (h Fiber) joinOutside(d futex.Deadline) error {
	return joinedFault(h.awaitOutside(patience{d: d}))
}

// joinedFault turns what awaitOutside returns into an error.
func joinedFault(fault uintptr, err error) error {
	if err == nil && fault != 0 {
		return lwp.KeepFault((*lwp.Fault)(pointer(fault)))
	}
	return err
}

// awaitOutside is joinOutside which returns the fault that the fiber died of, to
// be kept or dropped.
func (h Fiber) awaitOutside(p patience) (fault uintptr, err error) {
	f, err := h.lookup()
	if err != nil {
		return 0, err
	}
	c := f.hold()
	if c == nil {
		return 0, ErrJoined
	}
	b, err := newBlock()
	if err == nil {
		fault, err = h.joinAs((*waiter)(b), f, c, p)
		freeBlock(b)
	}
	c.letGo()
	return fault, err
}

// joinAcross is Join of a fiber of another scheduler, whose workers could not
// make the caller ready: a thread that is no worker waits, and is told if that
// is in a deadlock.
func (h Fiber) joinAcross(x crossing) error {
	if err := Blocking(cross, (*crossing)(noescape(unsafe.Pointer(&x)))); err != nil {
		return err
	}
	f := self().running()
	if x.fault != 0 {
		f.inherits(x.fault)
		return f.joined()
	}
	return x.err
}

// A crossing lies on the stack of the fiber that joins.
type crossing struct {
	h      Fiber
	within bool // b, and past, are its limit
	b      bound
	past   error
	fault  uintptr
	err    error // a package variable
}

func cross(x *crossing) {
	if !x.within {
		x.fault, x.err = x.h.awaitOutside(patience{})
		return
	}
	f, err := x.h.lookup()
	if x.err = err; err == nil {
		var w bounded
		x.fault, x.err = x.h.awaitBounded(&w, f, x.b, x.past)
	}
}

// joinAs is awaitOutside with me to wait.
func (h Fiber) joinAs(me *waiter, f *fiber, c *core, p patience) (fault uintptr, err error) {
	mine := uint64((*fiber)(unsafe.Pointer(me)).link())
	for {
		word := atomic.LoadUint64(&f.word)
		if !h.mine(word) {
			return 0, ErrJoined
		}
		switch uint32(word) {
		case 0:
			if !atomic.CompareAndSwapUint64(&f.word, word, word|mine) {
				continue
			}
			what := c.await(me, p)
			if what == allEnded {
				continue
			}
			if !h.cancel(f, mine) {
				f.told(h.serial)
				continue
			}
			if what == late {
				return 0, ErrTimeout
			}
			return 0, c.report()
		case over:
			if atomic.CompareAndSwapUint64(&f.word, word, word&^joinMask|taken) {
				fault := f.takeEnded()
				c.release(f)
				return fault, nil
			}
		case noJoin:
			return 0, ErrDetached
		default:
			return 0, ErrJoined
		}
	}
}

// told waits until the end of a fiber, which has found a waiter in its word, is
// done with the waiter.
func (f *fiber) told(serial uint64) {
	for atomic.LoadUint64(&f.serial) == serial && atomic.LoadUint32(&f.state) == ending {
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// cancel takes back a claim to join f, and reports false if f has ended meanwhile.
func (h Fiber) cancel(f *fiber, claim uint64) bool {
	for {
		word := atomic.LoadUint64(&f.word)
		if word&joinMask != claim {
			return false
		}
		if atomic.CompareAndSwapUint64(&f.word, word, word&^joinMask) {
			return true
		}
	}
}

// Detach gives up the right to join h: its slot is free when it ends.
//
// Context: anywhere, h itself included.
// Errors: ErrNoFiber, ErrDetached, ErrJoined.
func (h Fiber) Detach() error {
	f, err := h.lookup()
	if err != nil {
		return err
	}
	if w := self(); w != nil && w.core == f.core() {
		return h.detach(f)
	}
	c := f.hold() // as in Unpark
	if c == nil {
		return ErrJoined
	}
	err = h.detach(f)
	c.letGo()
	return err
}

// detach is Detach of a fiber whose scheduler the caller holds or runs on.
func (h Fiber) detach(f *fiber) error {
	for {
		word := atomic.LoadUint64(&f.word)
		if !h.mine(word) {
			return ErrJoined
		}
		switch uint32(word) {
		case 0:
			if atomic.CompareAndSwapUint64(&f.word, word, word|noJoin) {
				return nil
			}
		case over:
			if atomic.CompareAndSwapUint64(&f.word, word, word&^joinMask|taken) {
				if w := self(); w != nil {
					w.call(forgetFn, unsafe.Pointer(f))
				} else {
					f.forget()
				}
				return nil
			}
		case noJoin:
			return ErrDetached
		default:
			return ErrJoined
		}
	}
}

var forgetFn = func(f unsafe.Pointer) { (*fiber)(f).forget() }

// forget frees the slot of a fiber that has ended and was taken by the caller.
func (f *fiber) forget() {
	reportFault(f.takeEnded())
	if w, c := self(), f.core(); w != nil && w.core == c {
		w.release(f)
	} else {
		c.release(f)
	}
}

// release frees a slot from outside the workers.
func (c *core) release(f *fiber) {
	class := f.link().class()
	f.clear()
	f.next = 0
	c.pools[class].putOne(f)
}

// ended is what comes after the end of a fiber's function, on its stack. The
// fiber that waits for this one goes on at once; else the worker's next does. The
// switch to one that waits is counted by its Join.
func ended(on uintptr) (*asm.Context, *uint32) {
	w := (*worker)(pointer(on))
	f := w.running()
	k := &w.free
	// One that has nothing but a fiber that waits for it.
	if j := link(atomic.LoadUint64(&f.word)); f.flags == 0 && w.turning == 0 && k.n < w.batch &&
		j-firstLink < region.loops-firstLink {
		if to := j.fiber(); to.flags&pinned == 0 {
			w.stats.ends++
			f.setState(gone)
			k.add(f) // nobody but w takes the slot before w is off this stack
			to.worker = w.loopLink
			w.goesOn(to)
			return &to.Context, &w.left
		}
	}
	return w.ended(f)
}

// ended is the end of f, which runs on w.
func (w *worker) ended(f *fiber) (*asm.Context, *uint32) {
	if f.flags != 0 {
		f.end()
		w = self() // destructors may have moved it
		if f.flags&hasGroup != 0 {
			f.leaveGroup(w)
		}
	}
	w.stopTurning()
	w.stats.ends++
	j := link(atomic.LoadUint64(&f.word) & joinMask)
	if j < firstLink || j >= region.loops {
		return w.endUnjoined(f)
	}
	to := j.fiber()
	if f.flags&hasFault != 0 {
		to.inherits(f.fault)
	}
	f.setState(gone)
	w.release(f) // as above
	if to.flags&pinned != 0 {
		w.readies(to)
		return &w.next().Context, &w.left
	}
	to.worker = w.loopLink
	w.goesOn(to)
	return &to.Context, &w.left
}

// endUnjoined ends a fiber that no fiber waits for. From the exchange on, who
// joins may free the slot as soon as its state is gone, which the switch away
// from the stack sees to.
func (w *worker) endUnjoined(f *fiber) (*asm.Context, *uint32) {
	f.setState(ending)
	for {
		word := atomic.LoadUint64(&f.word)
		j := link(word & joinMask)
		switch {
		case j == noJoin:
			if f.flags&hasFault != 0 {
				w.call(reportFn, pointer(f.fault))
			}
			f.setState(gone)
			w.release(f)
			return &w.next().Context, &w.left
		case j >= firstLink && j < region.loops: // meanwhile
			to := j.fiber()
			if f.flags&hasFault != 0 {
				to.inherits(f.fault)
			}
			f.setState(gone)
			w.release(f)
			w.readies(to)
			return &w.next().Context, &w.left
		}
		if !atomic.CompareAndSwapUint64(&f.word, word, word&^joinMask|over) {
			continue
		}
		if j >= region.loops {
			w.call(tellFn, unsafe.Pointer(j.fiber()))
		}
		return &w.next().Context, &f.state
	}
}

// end does what only some fibers need at their end.
func (f *fiber) end() {
	w := self()
	if f.flags&hasKept != 0 {
		w.call(dropFn, pointer(f.fault))
		f.flags &^= hasKept
	}
	if f.flags&hasFaulted != 0 {
		f.flags &^= hasFaulted
		if f.flags&hasFault == 0 { // the first counts; a destructor may fault too
			w.call(holdFn, unsafe.Pointer(f))
		}
	}
	if f.flags&hasLocals != 0 {
		f.endLocals()
	}
	if f.flags&hasGroup != 0 {
		f.flags &= hasFault | hasGroup | hasRoot // see leaveGroup
		return
	}
	if f.flags&hasRoot != 0 {
		endRoot(f.root)
	}
	f.flags &= hasFault
}

var (
	holdFn = func(p unsafe.Pointer) {
		f := (*fiber)(p)
		f.fault = uintptr(unsafe.Pointer(lwp.HoldFault()))
		f.flags |= hasFault
	}
	dropFn   = func(p unsafe.Pointer) { lwp.DropFault((*lwp.Fault)(p)) }
	reportFn = func(p unsafe.Pointer) { reportFault(uintptr(p)) }
	tellFn   = func(p unsafe.Pointer) { (*waiter)(p).tell(allEnded) }
)

func reportFault(fault uintptr) {
	if fault != 0 {
		lwp.ReportFault((*lwp.Fault)(pointer(fault)))
	}
}
