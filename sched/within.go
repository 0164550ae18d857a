package sched

import (
	"sync/atomic"
	"time"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// ParkWithin is Park with a limit on the wait. An Unpark that comes at the same
// time as the end of that counts.
//
// Context: fiber.
// Errors: ErrTimeout, ErrCanceled; ErrNotFiber elsewhere.
// Ordering: as Park.
func ParkWithin(reason string, l Limit) error {
	w := self()
	if w == nil || w.idle() {
		return ErrNotFiber
	}
	f := w.running()
	if atomic.LoadUint64(&f.word)&token != 0 {
		atomic.AndUint64(&f.word, ^uint64(token))
		return nil
	}
	b, err := l.bound()
	if err != nil {
		return err
	}
	if b.none() {
		Park(reason)
		return nil
	}
	asm.StopRoom()
	var p parking
	p.begin(w, f, true)
	return p.park(w, f, reason, b)
}

// A parking is a Park that a deadline or a Token can end.
type parking struct {
	wait
	cancel node
}

//go:nosplit // a stack that runs out must not do so here: see fiber
func (p *parking) park(w *worker, f *fiber, reason string, b bound) error {
	if b.token != nil {
		p.cancel.whose, p.cancel.index = uintptr(unsafe.Pointer(&p.wait)), claimCanceled
		p.token = uintptr(unsafe.Pointer(&p.cancel))
		if !b.token.enter(&p.cancel) {
			return ErrCanceled
		}
		f.flags |= hasToken
	}
	e := entry{owner: uintptr(unsafe.Pointer(f))}
	if b.at != 0 {
		w.core.arm(w, &e, b.at)
	}
	until, bits := uint64(fired|token|granted), uint64(asleep|waiting)
	for {
		word := atomic.LoadUint64(&f.word)
		if word&until != 0 {
			if word&granted != 0 || p.quit(claimTimeout) {
				break
			}
			until, bits = granted, asleep // who has the claim is about to resume f
			continue
		}
		f.stop(parked, reason, w.clock)
		w.stopTurning()
		f.prev = link(uintptr(unsafe.Pointer(f)) - uintptr(unsafe.Pointer(&p.wait)))
		to := w.next()
		if asm.SwitchIf(&f.Context, &to.Context, &f.word, word, word|bits) {
			w = self()
			continue
		}
		w.putBack(to)
		w.goesOn(f)
	}
	if b.at != 0 {
		w.core.disarm(w, &e)
	}
	if b.token != nil {
		p.cancel.leave(w)
		f.flags &^= hasToken
	}
	old := atomic.AndUint64(&f.word, ^uint64(fired|token|granted))
	switch {
	case old&token != 0:
		return nil
	case old&granted != 0:
		return ErrCanceled
	}
	return ErrTimeout
}

// SleepWithin is Sleep that l can end before.
//
// Context: fiber, thread or goroutine.
// Errors: ErrTimeout and ErrCanceled if the limit came before the end of d.
func SleepWithin(d time.Duration, l Limit) error {
	b, err := l.bound()
	if err != nil {
		return err
	}
	me, f := here()
	if f != nil {
		asm.StopRoom()
	}
	at := later(clockNow(me), int64(d))
	whole := b.at == 0 || at <= b.at
	if whole {
		b.at = at
	}
	if asm.Current() == nil {
		err = newBounded(nil).sleep(me, f, b)
	} else {
		var w bounded
		err = w.sleep(me, f, b)
	}
	if err == ErrTimeout && whole {
		return nil
	}
	return err
}

// sleep waits for the end of b alone.
func (w *bounded) sleep(me *worker, f *fiber, b bound) error {
	w.begin(me, f, true)
	return w.suspendWithin(me, f, whySleep, b, &w.cancel)
}

// JoinFor is Join with a bound on the wait.
//
// Context: as Join.
// Errors: also ErrTimeout, after which the fiber can be joined again.
func (h Fiber) JoinFor(d time.Duration) error {
	if w := self(); w == nil || w.idle() {
		return h.joinOutside(futex.After(d))
	}
	return h.JoinWithin(For(d))
}

// JoinWithin is Join with a limit on the wait. A fiber that has ended is joined,
// also if it did so at the same time as the limit came, or before the call.
//
// Context: as Join.
// Errors: also ErrTimeout and ErrCanceled, after which the fiber can be joined again.
func (h Fiber) JoinWithin(l Limit) error {
	b, past := l.bound()
	if asm.Current() == nil {
		return h.joinBounded(newBounded(nil), b, past)
	}
	var w bounded
	return h.joinBounded(&w, b, past)
}

func (h Fiber) joinBounded(w *bounded, b bound, past error) error {
	target, err := h.lookup()
	if err != nil {
		return err
	}
	me, f := here()
	if f == target {
		return ErrSelf
	}
	c := target.core()
	if f == nil {
		return joinedFault(h.awaitBounded(w, target, b, past))
	}
	if me.core != c {
		return h.joinAcross(crossing{h: h, within: true, b: b, past: past})
	}
	fault, err := h.joinLimited(w, target, c, b, past)
	if err != nil || fault == 0 {
		return err
	}
	_, f = here()
	f.inherits(fault)
	return f.joined()
}

// awaitBounded is awaitOutside with a limit.
func (h Fiber) awaitBounded(w *bounded, target *fiber, b bound, past error) (fault uintptr, err error) {
	c := target.hold()
	if c == nil { // as in Unpark
		return 0, ErrJoined
	}
	fault, err = h.joinLimited(w, target, c, b, past)
	c.letGo()
	return fault, err
}

// joinLimited is JoinWithin with w to wait; past is why it may not. The waiter
// that the join word names has f resumed by w's node, which is in no queue.
func (h Fiber) joinLimited(w *bounded, target *fiber, c *core, b bound, past error) (fault uintptr, err error) {
	var block uintptr
	for {
		word := atomic.LoadUint64(&target.word)
		switch {
		case !h.mine(word):
			err = ErrJoined
		case uint32(word) == over:
			if !atomic.CompareAndSwapUint64(&target.word, word, word&^joinMask|taken) {
				continue
			}
			fault = target.takeEnded()
			if me, _ := here(); me != nil && me.core == c {
				me.release(target)
			} else {
				outOf(me, releaseFn, unsafe.Pointer(target))
			}
		case uint32(word) == noJoin:
			err = ErrDetached
		case uint32(word) != 0:
			err = ErrJoined
		case past != nil:
			err = past
		case block == 0:
			me, _ := here()
			outOf(me, newBlockFn, unsafe.Pointer(&block))
			if block == 0 {
				err = errNoMemory
				break
			}
			continue
		default:
			var again bool
			if again, err = h.joinOnce(w, target, c, b, (*waiter)(pointer(block)), word); again {
				continue
			}
		}
		break
	}
	if block != 0 {
		me, _ := here()
		outOf(me, freeBlockFn, pointer(block))
	}
	return fault, err
}

// joinOnce enters m into the join word and waits. It reports true if the word is
// to be looked at again.
func (h Fiber) joinOnce(w *bounded, target *fiber, c *core, b bound, m *waiter, word uint64) (again bool, err error) {
	me, f := here()
	if f != nil {
		asm.StopRoom() // from the entry on the stack must not run out
	}
	w.begin(me, f, true)
	w.claim, w.word, w.token, w.value = 0, 0, 0, uintptr(unsafe.Pointer(m))
	m.word, m.node = 0, uintptr(unsafe.Pointer(&w.node))
	mine := uint64((*fiber)(unsafe.Pointer(m)).link())
	if !atomic.CompareAndSwapUint64(&target.word, word, word|mine) {
		return true, nil
	}
	if f == nil {
		c.enlist(m) // on a fiber, who waits is in the report
	}
	err = w.suspendWithin(me, f, whyJoin, b, &w.cancel)
	what := uint32(allEnded)
	if f == nil {
		c.delist(m)
		if err == nil {
			what = atomic.LoadUint32(&m.word)
		}
	}
	if err == nil && what != stuck {
		return true, nil
	}
	if !h.cancel(target, mine) { // it has ended
		target.told(h.serial)
		return true, nil
	}
	if err == nil {
		err = c.report()
	}
	return false, err
}

var (
	newBlockFn = func(p unsafe.Pointer) {
		if b, err := newBlock(); err == nil {
			*(*uintptr)(p) = uintptr(b)
		}
	}
	freeBlockFn = func(p unsafe.Pointer) { freeBlock(p) }
	releaseFn   = func(p unsafe.Pointer) { (*fiber)(p).core().release((*fiber)(p)) }
)
