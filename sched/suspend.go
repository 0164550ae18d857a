package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// suspend waits until w's node has been taken and resumed; me and f are here's.
// The worker can be another afterwards.
//
//go:nosplit // as node.of
func (w *wait) suspend(me *worker, f *fiber, reason why) {
	if f == nil {
		outOf(nil, outsideFn, unsafe.Pointer(w))
		return
	}
	for {
		word := atomic.LoadUint64(&f.word)
		if word&granted != 0 {
			atomic.AndUint64(&f.word, ^uint64(granted))
			return
		}
		f.stopAt(w, reason, me.clock)
		to := me.next()
		if asm.SwitchIf(&f.Context, &to.Context, &f.word, word, word|asleep) {
			return
		}
		me.putBack(to)
		me.goesOn(f)
	}
}

// isWait is set in fiber.reasonLen when reason is a *wait: also after the wait,
// until the fiber stops again.
const isWait = 1 << 31

// stopAt is stop of a fiber that waits at a primitive.
//
//go:nosplit // as node.of
func (f *fiber) stopAt(w *wait, reason why, since uint64) {
	f.reason, f.reasonLen = uintptr(unsafe.Pointer(w)), uint32(reason)|isWait
	f.since = since
	f.setState(waits)
}

// suspendWithin is suspend until b at the latest, or for ever. It returns nil
// if a node was taken: w.claim is its index, where b bounds or many are there.
// t is for a Token: zeroed, where w is.
//
//go:nosplit // as node.of
func (w *wait) suspendWithin(me *worker, f *fiber, reason why, b bound, t *node) error {
	if !w.many {
		w.suspend(me, f, reason)
		return nil
	}
	if b.token != nil {
		t.whose, t.index = uintptr(unsafe.Pointer(w)), claimCanceled
		if b.token.enter(t) {
			w.token = uintptr(unsafe.Pointer(t))
		} else if w.quit(claimCanceled) {
			return ErrCanceled
		} // else who has the claim is about to resume w
	}
	if f != nil {
		w.suspendUntil(me, f, reason, b.at)
	} else {
		o := until{uintptr(unsafe.Pointer(w)), b.at}
		outOf(nil, outsideUntilFn, unsafe.Pointer(&o))
	}
	if w.token != 0 {
		b.token.q.drop(t)
	}
	switch w.claim {
	case claimTimeout:
		return ErrTimeout
	case claimCanceled:
		return ErrCanceled
	}
	return nil
}

// quit has the waiter itself end w, and reports false if somebody else has.
//
//go:nosplit // as node.of
func (w *wait) quit(claim uint32) bool { return atomic.CompareAndSwapUint32(&w.claim, 0, claim) }

// suspendUntil suspends f until somebody has resumed it, or it has ended w
// because the time is up. at can be 0, for never.
//
//go:nosplit // as node.of
func (w *wait) suspendUntil(me *worker, f *fiber, reason why, at int64) {
	until := uint64(granted)
	e := entry{owner: uintptr(unsafe.Pointer(f))}
	if at != 0 {
		until |= fired
		me.core.arm(me, &e, at)
	}
	for {
		word := atomic.LoadUint64(&f.word)
		if word&until != 0 {
			if word&granted != 0 || w.quit(claimTimeout) {
				break
			}
			until = granted // who has the claim is about to resume f
			continue
		}
		f.stopAt(w, reason, me.clock)
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
	atomic.AndUint64(&f.word, ^uint64(fired|granted))
}

type until struct {
	wait uintptr // *wait
	at   int64
}

var (
	outsideFn = func(p unsafe.Pointer) {
		w := (*wait)(p)
		for atomic.LoadUint32(&w.word) == 0 {
			futex.Wait(&w.word, 0)
		}
	}
	outsideUntilFn = func(p unsafe.Pointer) {
		w := (*wait)(pointer((*until)(p).wait))
		d := futex.Never
		if at := (*until)(p).at; at != 0 {
			d = futex.AtMonotonic(at)
		}
		for atomic.LoadUint32(&w.word) == 0 {
			if out, _ := futex.WaitUntil(&w.word, 0, d); out == futex.TimedOut {
				if w.quit(claimTimeout) {
					return
				}
				d = futex.Never // who has the claim is about to set word
			}
		}
	}
)

// leave takes n, of a fiber, out of its queue, if it is there. (A goroutine's
// primitive can lie on its stack, and elsewhere by now.)
//
//go:nosplit // as node.of
func (n *node) leave(me *worker) {
	if n.queue == 0 {
		return
	}
	q := (*queue)(pointer(n.queue))
	q.latch.lock()
	var c *core
	if n.queued {
		c = q.unqueue(me, n)
	}
	q.latch.unlock()
	c.settles(me)
}

// abandon takes the nodes of a fiber that Close ends out of their queues. Others
// may have waited behind it for their turn. A primitive is there as long as a node
// is in its queue. If somebody has resumed f, after the last worker had gone, it
// would have done the same itself, but for the node that was taken.
func (f *fiber) abandon() {
	w, reason := (*wait)(pointer(f.reason)), why(f.reasonLen&^isWait)
	resumed := f.state == runnable && !f.Fresh() // the reason of a fresh one is from a life before
	switch {
	case f.state == waits:
	case resumed && f.reasonLen&isWait != 0:
	case (resumed || f.state == parked) && f.flags&hasToken != 0:
		w, reason = (*wait)(pointer(uintptr(unsafe.Pointer(f))-uintptr(f.prev))), whySleep
	default:
		return
	}
	own := w == &f.own().wait
	switch n := &(*single)(unsafe.Pointer(w)).node; {
	case !own && w.nodes != 0:
	case n.queue == 0: // a JoinWithin's, or nothing but a Token
		if n.value != 0 {
			freeBlock(pointer(n.value))
		}
	case resumed && reason == whyMutex && !n.queued && !n.ok:
		(*Mutex)(unsafe.Add(pointer(n.queue), -int(unsafe.Offsetof(Mutex{}.q)))).abandon()
	case n.queued:
		q := pointer(n.queue)
		switch reason {
		case whySemaphore:
			(*Semaphore)(unsafe.Add(q, -int(unsafe.Offsetof(Semaphore{}.q)))).withdraw(n)
		case whyRead:
			(*RWMutex)(unsafe.Add(q, -int(unsafe.Offsetof(RWMutex{}.readers)))).withdraw(n, rwReader)
		case whyWrite:
			(*RWMutex)(unsafe.Add(q, -int(unsafe.Offsetof(RWMutex{}.writers)))).withdraw(n, rwWriter)
		case whyBarrier:
			(*Barrier)(unsafe.Add(q, -int(unsafe.Offsetof(Barrier{}.q)))).abandon(n)
		default:
			n.leave(nil)
		}
	}
	if own {
		return
	}
	for i := range uintptr(w.n) {
		if n := nodeAt(w.nodes + i*unsafe.Sizeof(node{})); !resumed || w.claim != n.index {
			n.leave(nil)
		}
	}
	if w.token != 0 && !(resumed && w.claim == claimCanceled) {
		nodeAt(w.token).leave(nil)
	}
}
