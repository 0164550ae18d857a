package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
)

// waitWhile waits in q while *word, which changes under q's latch, is value, or
// until all who wait there are let go. With an error the caller's node is out
// of q. It takes the latch in any case: who has changed word may hold it yet, and
// the caller may free q after its wait.
func (q *queue) waitWhile(word *uint32, value uint32, l *Limit, reason why) error {
	me, f := here()
	me.needRoom()
	q.latch.lock()
	if atomic.LoadUint32(word) != value {
		q.latch.unlock()
		return nil
	}
	if l == nil && f != nil {
		q.await(me, 0, 0, reason)
		return nil
	}
	q.latch.unlock()
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return q.waitWhileAs(newBounded(unsafe.Pointer(q)), word, value, b, reason)
	}
	var w bounded
	return q.waitWhileAs(&w, word, value, b, reason)
}

// waitWhileAs is waitWhile with w to wait.
func (q *queue) waitWhileAs(w *bounded, word *uint32, value uint32, b bound, reason why) error {
	asm.StopRoom() // not to run out of stack in the queue
	me, f := here()
	w.begin(me, f, !b.none())
	q.latch.lock()
	if atomic.LoadUint32(word) != value {
		q.latch.unlock()
		return nil
	}
	q.add(&w.node)
	q.latch.unlock()
	err := w.suspendWithin(me, f, reason, b, &w.cancel)
	if err != nil {
		q.drop(&w.node)
	}
	return err
}

// drop takes n, which was not let go, out of q, if it is there.
//
//go:nosplit // see latch
func (q *queue) drop(n *node) {
	q.latch.lock()
	if n.queued {
		q.remove(n)
	}
	q.latch.unlock()
}
