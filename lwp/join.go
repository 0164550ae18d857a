package lwp

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"lwprt/asm"
	"lwprt/futex"
)

// Join waits until t has exited, then takes back its memory.
//
// Any number of callers may wait for one thread. One of them gets nil; the
// others get ErrJoined, when the thread has exited too.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Errors: ErrNoThread, ErrSelf, ErrDetached, ErrJoined, ErrPoolThread.
// A thread that died of a fault is joined by an error that is a *Fault.
// Ordering: t's exit synchronizes before Join returns.
// Source: set_tid_address(2), futex(2).
func (t Thread) Join() error { return t.join(futex.Deadline{}) }

// JoinFor is Join with a bound on the wait.
//
// Errors: also ErrTimeout; t can then be joined again.
func (t Thread) JoinFor(d time.Duration) error { return t.join(futex.After(d)) }

// TryJoin is Join without the wait.
//
// Errors: as Join's, and ErrRunning.
func (t Thread) TryJoin() error {
	r, err := t.joinable()
	if err != nil {
		return err
	}
	if atomic.LoadUint32(&r.exit) != 0 {
		r.drop(t.index(), 1)
		return ErrRunning
	}
	return r.collect(t.index())
}

func (t Thread) join(d futex.Deadline) error {
	r, err := t.joinable()
	if err != nil {
		return err
	}
	r.makeWay()
	if err := r.wait(d); err != nil {
		r.drop(t.index(), 1)
		return err
	}
	return r.collect(t.index())
}

// makeWay has a goroutine enter the scheduler once in a while before it
// sleeps. One that only starts and joins would never do so, and the runtime
// would take it for one that hogs its P: after 10 ms its monitor takes the P
// away in the middle of a wait, and from then on looks every 20 us, which made
// create and join of an empty thread a quarter slower on one CPU. 256 waits on
// one record take less than 10 ms; at 128 a busy goroutine on the same P cost
// more, and at 512 the gain was gone. Rejected: sched_yield(2), which gains as
// much on an idle CPU but gives up the whole slice, 2 ms a Join with one other
// process there; and a timed wait, as to arm a timer costs more than it saves.
func (r *record) makeWay() {
	if r.word.Load()>>indexBits%256 == 0 && atomic.LoadUint32(&r.exit) != 0 {
		if asm.Current() == nil { // alone: package freestanding sees it without optimization too
			runtime.Gosched()
		}
	}
}

// JoinContext is Join that gives up when ctx is done.
//
// Context: goroutine, which holds no thread of Go's while it waits; a thread uses
// JoinFor, as contexts need the Go runtime.
// Errors: as Join's, ctx.Err(), and ErrHosted on a thread. After ctx.Err() t
// can be joined again.
func (t Thread) JoinContext(ctx context.Context) error {
	if asm.Current() != nil {
		return ErrHosted
	}
	r, err := t.joinable()
	if err != nil {
		return err
	}
	if atomic.LoadUint32(&r.exit) != 0 {
		select {
		case <-t.Done():
		case <-ctx.Done():
			if atomic.LoadUint32(&r.exit) != 0 {
				r.drop(t.index(), 1)
				return ctx.Err()
			}
		}
		r.wait(futex.Never) // it is not there any more, but for want of memory
	}
	return r.collect(t.index())
}

// Detach gives up the right to join t: its memory is taken back when it ends.
//
// Context: goroutine or thread, t itself included.
// Errors: ErrNoThread, ErrDetached, ErrJoined, ErrPoolThread.
func (t Thread) Detach() error {
	r, err := t.hold()
	if err != nil {
		return err
	}
	for {
		s := r.state.Load()
		if err = unjoinable(s); err == nil && r.flags&lent != 0 {
			err = ErrPoolThread
		}
		if err != nil {
			break
		}
		if r.state.CompareAndSwap(s, s|detached) {
			if s&ending != 0 {
				bury(t.index())
			}
			break
		}
	}
	r.drop(t.index(), 1)
	reap()
	return err
}

// joinable takes a reference to t's record if t can be joined by the caller.
func (t Thread) joinable() (*record, error) {
	r, err := t.hold()
	if err != nil {
		return nil, err
	}
	err = unjoinable(r.state.Load())
	if c := current(); c != nil && (c.self == t || c.index == t.index()) {
		err = ErrSelf
	} else if err == nil && r.flags&lent != 0 {
		err = ErrPoolThread
	}
	if err != nil {
		r.drop(t.index(), 1)
		return nil, err
	}
	return r, nil
}

// unjoinable says why a thread in that state cannot be joined or detached.
func unjoinable(state uint32) error {
	switch {
	case state&detached != 0:
		return ErrDetached
	case state&collected != 0:
		return ErrJoined
	}
	return nil
}

// wait sleeps until the exit word is 0 or the deadline has passed.
func (r *record) wait(d futex.Deadline) error {
	for {
		v := atomic.LoadUint32(&r.exit)
		if v == 0 {
			break
		}
		// Not a private wait: the kernel's wake at the end of a thread is none.
		out, err := futex.Shared.WaitUntil(&r.exit, v, d)
		if err != nil {
			return failed(opFutex, err.(*futex.Error).Errno)
		}
		if out == futex.TimedOut && atomic.LoadUint32(&r.exit) != 0 {
			return ErrTimeout
		}
	}
	return nil
}

// passOn wakes the waiters of a thread that is gone, if there are more
// references than n. The kernel wakes one waiter, who owes the rest their
// wake; so does whoever drops the base reference, and before it does, because
// after that the one who was woken cannot tell by the count that there are
// others.
func (r *record) passOn(n uint64) {
	if r.word.Load()&indexMask > n {
		futex.Shared.Wake(&r.exit, futex.All)
	}
}

// collect takes back the memory of a thread whose exit word is 0, if the
// caller is the first to get here, and gives up the caller's reference.
func (r *record) collect(i uint32) error {
	r.passOn(2) // the base reference and the caller's
	for {
		s := r.state.Load()
		if err := unjoinable(s); err != nil {
			r.drop(i, 1)
			return err
		}
		if r.state.CompareAndSwap(s, s|collected) {
			break
		}
	}
	r.takeBack()
	f := r.takeFault(r.handle(i))
	r.drop(i, 2)
	if f != nil {
		return f
	}
	return nil
}

// handle returns the handle that is good for record i while it is held.
func (r *record) handle(i uint32) Thread { return Thread{r.word.Load()&^indexMask | uint64(i)} }

func (r *record) takeBack() {
	if r.ctl != 0 {
		(*control)(pointer(r.ctl)).recycle()
	}
}

// dead is the list of detached threads that are gone or about to be, by the
// index of their records. Many push; whoever takes, takes all, so that no
// record can leave the list and come back between a load and a swap.
var dead atomic.Uint32

func bury(i uint32) {
	r := recordAt(i)
	for {
		head := dead.Load()
		atomic.StoreUint32(&r.next, head)
		if dead.CompareAndSwap(head, i) {
			return
		}
	}
}

// reapRoom is more stack than reap needs, in a program without optimization too.
const reapRoom = 2560

// reap collects those of dead that are gone. A thread whose stack could run out
// meanwhile leaves them to others: it would take those with it that it had in
// hand.
func reap() {
	if dead.Load() == 0 || !hasStack(reapRoom) {
		return
	}
	for i := dead.Swap(0); i != 0; {
		r := recordAt(i)
		next := atomic.LoadUint32(&r.next)
		if atomic.LoadUint32(&r.exit) == 0 {
			r.state.Or(collected)
			r.takeBack()
			r.reportFault(r.handle(i))
			r.passOn(1)
			r.drop(i, 1)
		} else {
			bury(i)
		}
		i = next
	}
}
