package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
)

// A Cond lets callers that hold a Mutex wait for a change of what it guards:
// fibers, threads and goroutines. The zero Cond is ready. It must not be copied
// after first use. The Mutex is an argument of Wait, and not a field, so that a
// Cond holds no pointer.
//
// A wait ends by a Signal or Broadcast that came after it began, or by its
// limit, and by nothing else. Others may have had the mutex in between, though:
// call it in a loop that looks at the condition.
//
//	m.Lock()
//	for !condition() {
//		c.Wait(&m)
//	}
//	...
//	m.Unlock()
//
// The memory of a Cond, and that of a Mutex that is used with one, stays until
// the calls of Signal and Broadcast have returned.
//
// Who is signalled is not woken to fight for the mutex, but moved to the queue
// of the mutex, which is handed over to one after the other; one whose mutex is
// free gets it at once. So a Broadcast to ten thousand makes one of them ready.
//
// One that is moved has been claimed, and its limit does not count any more. If
// it is of another scheduler, that is not held while it waits for the mutex:
// Close can end it, as any that waits.
type Cond struct {
	_ noCopy
	q queue
}

// Wait unlocks m, waits for a Signal or Broadcast, and locks m again. The
// caller holds m; it panics if nobody does.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// Ordering: that of m.
func (c *Cond) Wait(m *Mutex) { c.wait(m, nil) }

// WaitWithin is Wait with a limit, which does not bound the time it takes to
// lock m. m is locked in any case.
//
// Errors: ErrTimeout, ErrCanceled; no Signal is lost to the caller then.
func (c *Cond) WaitWithin(m *Mutex, l Limit) error { return c.wait(m, &l) }

func (c *Cond) wait(m *Mutex, l *Limit) error {
	if atomic.LoadUint32(&m.state)&mutexLocked == 0 {
		panic("sched: Wait of a Cond with an unlocked Mutex")
	}
	if me, f := here(); l == nil && f != nil {
		c.await(me, f, m)
		return nil
	}
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return c.waitAs(newBounded(unsafe.Pointer(c)), m, b)
	}
	var w bounded
	return c.waitAs(&w, m, b)
}

// await waits without a limit.
// What it calls is nosplit.
func (c *Cond) await(me *worker, f *fiber, m *Mutex) {
	var s single
	s.begin(me, f, false)
	c.enter(&s.node, m)
	m.release()
	s.suspend(me, f, whyCond)
}

// enter puts n into c's queue, to be moved to m's.
//
//go:nosplit // see latch
func (c *Cond) enter(n *node, m *Mutex) {
	n.value, n.kind = uintptr(unsafe.Pointer(m)), lockMoved
	c.q.latch.lock()
	c.q.add(n)
	c.q.latch.unlock()
}

// waitAs is wait with w to wait.
func (c *Cond) waitAs(w *bounded, m *Mutex, b bound) error {
	asm.StopRoom() // not to run out of stack in the queue
	me, f := here()
	me.needRoom()
	w.begin(me, f, !b.none())
	c.enter(&w.node, m)
	m.release()
	err := w.suspendWithin(me, f, whyCond, b, &w.cancel)
	if err != nil {
		c.q.drop(&w.node)
		m.Lock()
	}
	return err
}

// Signal lets the one go on that has waited longest, if there is one. The caller
// may hold the mutex.
//
// Context: anywhere; it never waits.
func (c *Cond) Signal() { c.signal() }

//go:nosplit // see latch
func (c *Cond) signal() {
	me, _ := here()
	me.needRoom()
	c.q.latch.lock()
	n := c.q.take(me)
	c.q.latch.unlock()
	if n != nil {
		n.move(me)
	}
}

// Broadcast lets all go on that wait; they do so one after the other, as the
// mutex comes free. The caller may hold the mutex.
//
// Context: anywhere; it never waits.
func (c *Cond) Broadcast() { c.broadcast() }

//go:nosplit // see latch
func (c *Cond) broadcast() {
	me, _ := here()
	me.needRoom()
	c.q.latch.lock()
	n := c.q.takeAll(me)
	c.q.latch.unlock()
	for n != nil {
		next := nodeAt(n.next)
		n.move(me)
		n = next
	}
}

// move has the waiter of n, which the caller has taken, go on with its mutex
// locked: now, or as one who waits for it. n is gone then.
//
//go:nosplit // see latch
func (n *node) move(me *worker) {
	m := (*Mutex)(pointer(n.value))
	m.q.latch.lock()
	if m.grab() {
		m.q.latch.unlock()
		n.resume(me)
		return
	}
	held := n.foreign(me)
	m.q.add(n)
	m.q.latch.unlock()
	if held != nil {
		held.letGo()
	}
}

// foreign returns the scheduler of the waiter of n if it is not the caller's.
//
//go:nosplit // see latch
func (n *node) foreign(me *worker) *core {
	w := n.of()
	if w.fiber == 0 || w.local(me) {
		return nil
	}
	return (*core)(pointer(w.core))
}
