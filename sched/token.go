package sched

import (
	"sync/atomic"
	"unsafe"
)

// A Token cancels waits: those that have it in their Limit, and begin before or
// after its Cancel. The zero Token is not canceled. It can be used by any
// number of fibers, threads and goroutines at a time, must not be copied after
// first use, and stays in memory as long as somebody waits with it. A context
// cancels a Token by context.AfterFunc(ctx, t.Cancel).
type Token struct {
	_        noCopy
	canceled uint32
	q        queue
}

// Cancel ends the waits, with ErrCanceled. A second call does nothing.
//
// Context: anywhere.
// Ordering: Cancel happens before the return of the waits that it ends, and
// before a Canceled that reports true.
func (t *Token) Cancel() {
	me, _ := here()
	me.needRoom()
	t.cancel(me)
}

//go:nosplit // as node.of
func (t *Token) cancel(me *worker) {
	t.q.latch.lock()
	atomic.StoreUint32(&t.canceled, 1)
	n := t.q.takeAll(me)
	t.q.latch.unlock()
	n.resumeAll(me)
}

// Canceled reports whether t is canceled; a nil Token never is.
//
//go:nosplit // as node.of
func (t *Token) Canceled() bool { return t != nil && atomic.LoadUint32(&t.canceled) != 0 }

// enter puts n into t's queue, and reports false if t is canceled.
//
//go:nosplit // as node.of
func (t *Token) enter(n *node) bool {
	t.q.latch.lock()
	ok := t.canceled == 0
	if ok {
		t.q.add(n)
	}
	t.q.latch.unlock()
	return ok
}

// Case is the case of a Select that t is canceled. A Limit ends the wait with
// ErrCanceled instead.
func (t *Token) Case() Case { return Case{on: unsafe.Pointer(&t.q), ready: tokenReady} }

//go:nosplit // see latch
func tokenReady(q unsafe.Pointer, _ bool) bool {
	return (*Token)(unsafe.Add(q, -int(unsafe.Offsetof(Token{}.q)))).canceled != 0
}
