package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp"
)

// A Group is fibers that do parts of one task, with the manners of package
// golang.org/x/sync/errgroup: Wait waits for all of them and returns the first
// error, which cancels the group's Token. A member that dies of a fault has
// that as its error; nothing is printed. The zero Group is ready. A Group contains
// no pointer, keeps no list, and takes the same memory for any number of members.
//
// It must not be copied after first use, nor its memory go before a Wait has
// returned. No member touches it after that: it can lie in the frame of the
// fiber that waits. Members must not leave it earlier than by their end.
type Group struct {
	_     noCopy
	q     queue // those in Wait; its latch guards
	n     int64 // members
	limit int64 // SetLimit's + 1; 0 for none
	err   [2]uintptr
	room  Semaphore // how many more there may be, under a limit
	token Token
}

// SetLimit has no more than n members be there at a time; GroupGo waits for its
// turn. If n is negative there is no limit. None with n = 0.
//
// Context: anywhere.
// Errors: ErrConfig while there are members.
func (g *Group) SetLimit(n int) error {
	me, _ := here()
	me.needRoom()
	if !g.setLimit(me, int64(max(n, -1))+1) {
		return ErrConfig
	}
	return nil
}

// setLimit is SetLimit; some may be waiting since the limit was 0.
//
//go:nosplit // see latch
func (g *Group) setLimit(me *worker, limit int64) bool {
	var next *node
	g.q.latch.lock()
	ok := g.n == 0
	if ok {
		g.limit = limit
		g.room.q.latch.lock()
		if g.room.n = limit - 1; limit == 0 {
			g.room.n = MaxPermits
		}
		next = g.room.deal(me)
		g.room.q.latch.unlock()
	}
	g.q.latch.unlock()
	next.resumeAll(me)
	return ok
}

// Token returns the Token that the first error cancels. Wait makes it new.
func (g *Group) Token() *Token { return &g.token }

// Cancel cancels the group's Token without an error.
//
// Context: anywhere.
func (g *Group) Cancel() { g.token.Cancel() }

// GroupGo starts a member of g that runs fn(arg), on the caller's scheduler, and
// waits before if g has as many as it may have. An error that fn returns is one
// that outlives the fiber: a package variable, or what Join has returned.
//
// Context: fiber. What is said of Go and of its arguments holds here.
// Errors: ErrNilFunc; ErrNotFiber; ErrClosed; *Error with ENOMEM.
// Ordering: what happens before GroupGo happens before fn, and the end of the
// member before the return of Wait.
func GroupGo[T any](g *Group, fn func(*T) error, arg *T) error {
	_, err := g.start(*(*unsafe.Pointer)(unsafe.Pointer(&fn)), noescape(unsafe.Pointer(arg)), true)
	return err
}

// GroupTryGo is GroupGo if g may have another member now, and reports whether
// it may.
//
// Errors: as GroupGo.
func GroupTryGo[T any](g *Group, fn func(*T) error, arg *T) (bool, error) {
	return g.start(*(*unsafe.Pointer)(unsafe.Pointer(&fn)), noescape(unsafe.Pointer(arg)), false)
}

// GroupSpawn starts a member of g on s, from outside, and waits before if g has
// as many as it may have. g, fn and arg stay reachable for the collector until
// the member has ended.
//
// Context: goroutine.
// Errors: ErrNilFunc; ErrClosed; ErrHosted on a thread; *Error with ENOMEM.
func GroupSpawn[T any](s *Scheduler, g *Group, fn func(*T) error, arg *T) error {
	return g.spawn(s, *(*unsafe.Pointer)(unsafe.Pointer(&fn)), unsafe.Pointer(arg))
}

func (g *Group) spawn(s *Scheduler, fn, arg unsafe.Pointer) error {
	switch {
	case fn == nil:
		return ErrNilFunc
	case asm.Current() != nil:
		return ErrHosted
	}
	if g.limit != 0 {
		g.room.Acquire(1)
	}
	g.enter()
	_, err := s.spawn(*(*unsafe.Pointer)(unsafe.Pointer(&memberFn)), arg, &Attr{Detached: true, group: g, member: fn})
	if err != nil {
		g.done(nil)
	}
	return err
}

func (g *Group) start(fn, arg unsafe.Pointer, wait bool) (bool, error) {
	w := self()
	if w == nil || fn == nil || w.core.closing != 0 {
		return false, refusal(w, uintptr(fn))
	}
	if g.limit != 0 {
		if wait {
			g.room.Acquire(1)
		} else if !g.room.TryAcquire(1) {
			return false, nil
		}
		w = self()
	}
	asm.StopRoom() // g may lie on this stack
	f, errno := w.alloc(w.core.class)
	if errno != 0 {
		if g.limit != 0 {
			g.room.Release(1)
		}
		return false, errNoMemory
	}
	g.enter()
	f.prepare(w.core, *(*uintptr)(unsafe.Pointer(&memberFn)), uintptr(arg), &Attr{Detached: true, group: g, member: fn})
	f.worker = w.loopLink
	w.stats.spawns++
	w.stats.wakes-- // readies counts one
	w.readies(f)
	return true, nil
}

//go:nosplit // see latch
func (g *Group) enter() {
	g.q.latch.lock()
	g.n++
	g.q.latch.unlock()
}

// memberFn is the life of a member. The function is where the reason of a stop
// will be.
var memberFn = func(arg unsafe.Pointer) {
	f := self().running()
	fn := f.reason
	if err := (*(*func(unsafe.Pointer) error)(unsafe.Pointer(&fn)))(arg); err != nil {
		f.fails(*(*[2]uintptr)(unsafe.Pointer(&err)))
	}
}

// fails tells f's group of an error that its function has returned. A fault
// that f has from a Join goes along: it would not outlive f.
func (f *fiber) fails(err [2]uintptr) {
	asm.StopRoom()
	w := self()
	if g := (*Group)(pointer(f.group)); g.fail(w, err) && f.flags&hasKept != 0 && err == faultError(f.fault) {
		f.flags &^= hasKept
	}
}

// faultError returns the words of a fault as an error.
//
//go:nosplit // see latch
func faultError(fault uintptr) [2]uintptr {
	var err error = (*lwp.Fault)(pointer(fault))
	return *(*[2]uintptr)(unsafe.Pointer(&err))
}

// fail makes err the group's, if it is the first, and reports whether it is.
//
//go:nosplit // see latch
func (g *Group) fail(me *worker, err [2]uintptr) bool {
	g.q.latch.lock()
	first := g.err[0] == 0
	if first {
		g.err = err
	}
	g.q.latch.unlock()
	if first {
		g.token.cancel(me)
	}
	return first
}

// leaveGroup is what the end of a member does, after all else. The stack is
// empty by then: it does not run out.
func (f *fiber) leaveGroup(w *worker) {
	g := (*Group)(pointer(f.group))
	if f.flags&hasFault != 0 {
		if !g.fail(w, faultError(f.fault)) {
			w.call(dropFn, pointer(f.fault))
		}
	}
	g.done(w)
	if f.flags&hasRoot != 0 { // not before: it keeps g
		endRoot(f.root)
	}
	f.flags = 0
}

// done takes a member out. g is gone then, if it was the last.
//
//go:nosplit // see latch
func (g *Group) done(me *worker) {
	if g.limit != 0 {
		g.room.release(1)
	}
	var nodes *node
	g.q.latch.lock()
	if g.n--; g.n == 0 {
		nodes = g.q.takeAll(me)
	}
	g.q.latch.unlock()
	nodes.resumeAll(me)
}

// Wait waits until g has no members, and returns the first error. g can be used
// again then, with the limit as it was.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Errors: what a member's function has returned, or the *lwp.Fault it died of.
func (g *Group) Wait() error { return g.wait(nil) }

// WaitWithin is Wait with a limit.
//
// Errors: also ErrTimeout and ErrCanceled, after which it can be waited for again.
func (g *Group) WaitWithin(l Limit) error { return g.wait(&l) }

func (g *Group) wait(l *Limit) error {
	me, f := here()
	me.needRoom()
	g.q.latch.lock()
	if g.n == 0 {
		g.q.latch.unlock()
		return g.result()
	}
	if l == nil && f != nil {
		g.q.await(me, 0, 0, whyGroup)
		return g.result()
	}
	g.q.latch.unlock()
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return g.waitAs(newBounded(unsafe.Pointer(g)), b)
	}
	var w bounded
	return g.waitAs(&w, b)
}

func (g *Group) waitAs(w *bounded, b bound) error {
	me, f := here()
	me.needRoom()
	w.begin(me, f, !b.none())
	g.q.latch.lock()
	if g.n == 0 {
		g.q.latch.unlock()
		return g.result()
	}
	g.q.add(&w.node)
	g.q.latch.unlock()
	if err := w.suspendWithin(me, f, whyGroup, b, &w.cancel); err != nil {
		g.leave(&w.node)
		return err
	}
	return g.result()
}

//go:nosplit // see latch
func (g *Group) leave(n *node) {
	g.q.latch.lock()
	if n.queued {
		g.q.remove(n)
	}
	g.q.latch.unlock()
}

// take takes the first error, and makes the Token new, if no member is there.
//
//go:nosplit // see latch
func (g *Group) take() (err [2]uintptr) {
	g.q.latch.lock()
	if g.n == 0 {
		err = g.err
		g.err = [2]uintptr{}
		atomic.StoreUint32(&g.token.canceled, 0)
	}
	g.q.latch.unlock()
	return err
}

// result returns the first error. If it is a fault, that is the caller's.
func (g *Group) result() error {
	words := g.take()
	if words[0] == 0 {
		return nil
	}
	if fault := words[1]; words == faultError(fault) {
		if me, f := here(); me != nil {
			f.inherits(fault)
			return f.joined()
		}
		return lwp.KeepFault((*lwp.Fault)(pointer(fault)))
	}
	return *(*error)(unsafe.Pointer(&words))
}
