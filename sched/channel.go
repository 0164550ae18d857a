package sched

import (
	"runtime"
	"unsafe"

	"lwprt/asm"
)

// A channel is a Chan but for the type. In its queue are senders, or receivers;
// both only where one Select waits for either.
type channel struct {
	q      queue
	closed bool
	head   uintptr // index of the oldest value
	count  uintptr
	cap    uintptr
	buf    uintptr
}

// Kinds of nodes.
const (
	toSend = 1 + iota
	toRecv
)

// hasRoom says that a value can be put into the buffer and nobody waits;
// hasValue that there is one, and nobody waits. Under the latch.
//
//go:nosplit // see latch
func (c *channel) hasRoom() bool { return c.q.first == 0 && c.count < c.cap && !c.closed }

//go:nosplit // see latch
func (c *channel) hasValue() bool { return c.q.first == 0 && c.count > 0 }

// back adds a place to the buffer and returns it, front takes the oldest away;
// under the latch.
//
//go:nosplit // see latch
func (c *channel) back(size uintptr) unsafe.Pointer {
	i := c.head + c.count
	if i >= c.cap {
		i -= c.cap
	}
	c.count++
	return pointer(c.buf + i*size)
}

//go:nosplit // see latch
func (c *channel) front(size uintptr) unsafe.Pointer {
	i := c.head
	if c.head++; c.head == c.cap {
		c.head = 0
	}
	c.count--
	return pointer(c.buf + i*size)
}

// move copies a value, as bytes.
//
//go:nosplit // see latch
func move(to, from unsafe.Pointer, size uintptr) {
	if size == 8 {
		*(*uint64)(to) = *(*uint64)(from)
		return
	}
	moveBytes(to, from, size)
}

// moveBytes is a call, and not for its own sake: with a constant size, and an
// address that was a uintptr, Go 1.26's compiler dies of a copy.
//
//go:nosplit // see latch
//go:noinline
func moveBytes(to, from unsafe.Pointer, size uintptr) {
	copy(unsafe.Slice((*byte)(to), size), unsafe.Slice((*byte)(from), size))
}

// partner takes the first node of a kind, or returns nil. There is a node in
// the queue; under the latch.
//
//go:nosplit // see latch
func (c *channel) partner(me *worker, kind uint8) *node {
	for at := c.q.first; at != 0; {
		n := nodeAt(at)
		at = n.next
		if n.kind == kind {
			ok := n.claimed(me)
			c.q.remove(n)
			if ok {
				return n
			}
		}
	}
	return nil
}

// What came of an attempt.
type outcome uint32

const (
	done outcome = iota
	notReady
	closed
)

var outcomes = [...]error{nil, ErrNotReady, ErrChanClosed}

// isReady says whether a send or receive needs no wait; under the latch.
//
//go:nosplit // see latch
func (c *channel) isReady(kind uint8) bool {
	if c.closed || kind == toSend && c.count < c.cap || kind == toRecv && c.count > 0 {
		return true
	}
	for at := c.q.first; at != 0; at = nodeAt(at).next {
		if n := nodeAt(at); n.kind == toSend+toRecv-kind && n.open() {
			return true
		}
	}
	return false
}

// try sends or receives, if that needs no wait, and returns the other side to
// resume after unlatch, if it waits; under the latch.
//
//go:nosplit // see latch
func (c *channel) try(me *worker, kind uint8, value unsafe.Pointer, size uintptr) (n *node, out outcome) {
	if kind == toSend {
		return c.trySend(me, value, size)
	}
	return c.tryRecv(me, value, size)
}

//go:nosplit // see latch
func (c *channel) trySend(me *worker, value unsafe.Pointer, size uintptr) (n *node, out outcome) {
	if c.closed {
		return nil, closed
	}
	if c.q.first != 0 {
		if n = c.partner(me, toRecv); n != nil {
			move(pointer(n.value), value, size)
			n.ok = true
			return n, done
		}
	}
	if c.count < c.cap {
		move(c.back(size), value, size)
		return nil, done
	}
	return nil, notReady
}

//go:nosplit // see latch
func (c *channel) tryRecv(me *worker, value unsafe.Pointer, size uintptr) (n *node, out outcome) {
	if c.count > 0 {
		move(value, c.front(size), size)
		if c.q.first != 0 {
			if n = c.partner(me, toSend); n != nil {
				move(c.back(size), pointer(n.value), size)
				n.ok = true
			}
		}
		return n, done
	}
	if c.q.first != 0 {
		if n = c.partner(me, toSend); n != nil {
			move(value, pointer(n.value), size)
			n.ok = true
			return n, done
		}
	}
	if c.closed {
		return nil, closed
	}
	return nil, notReady
}

// send is Chan.Send without the type, and reports false if c is closed. What two
// fibers of one scheduler do that wait for each other comes first. Send is inlined,
// so that a fiber that has waited is back at its own code after one jump.
//
//go:noinline // asm.SwitchReturn wants its frame
func (c *channel) send(value unsafe.Pointer, size uintptr) bool {
	if c == nil {
		return forever(nil, whySendNil) == nil
	}
	c.q.latch.lock()
	if c.hasRoom() {
		move(c.back(size), value, size)
		c.q.latch.unlock()
		return true
	}
	me := self()
	if me == nil {
		c.q.latch.unlock()
		return c.outside(toSend, value, size, nil) == nil
	}
	if c.q.isNear(me, toRecv) {
		n := c.q.shift()
		move(pointer(n.value), value, size)
		n.ok = true
		c.q.latch.unlock()
		me.readies(n.owner())
		return true
	}
	n, out := c.trySend(me, value, size)
	if out != notReady {
		c.q.latch.unlock()
		if n != nil {
			n.resume(me)
		}
		return out == done
	}
	if !me.canHalt() {
		c.q.latch.unlock()
		return c.within(toSend, value, size, nil) == nil
	}
	f, to := c.q.halt(me, uintptr(value), toSend, whySend)
	return asm.SwitchReturn(&f.Context, &to.Context, c.q.release())
}

// recv is Chan.Recv, as send is Send.
//
//go:noinline // as send
func (c *channel) recv(value unsafe.Pointer, size uintptr) bool {
	if c == nil {
		return forever(nil, whyRecvNil) == nil
	}
	c.q.latch.lock()
	if c.hasValue() {
		move(value, c.front(size), size)
		c.q.latch.unlock()
		return true
	}
	me := self()
	if me == nil {
		c.q.latch.unlock()
		return c.outside(toRecv, value, size, nil) == nil
	}
	if c.q.first != 0 || c.closed || !me.canHalt() {
		if c.cap == 0 && c.q.isNear(me, toSend) {
			n := c.q.shift()
			move(value, pointer(n.value), size)
			n.ok = true
			c.q.latch.unlock()
			me.readies(n.owner())
			return true
		}
		n, out := c.tryRecv(me, value, size)
		if out != notReady {
			c.q.latch.unlock()
			if n != nil {
				n.resume(me)
			}
			return out == done
		}
		if !me.canHalt() {
			c.q.latch.unlock()
			return c.within(toRecv, value, size, nil) == nil
		}
	}
	f, to := c.q.halt(me, uintptr(value), toRecv, whyRecv)
	return asm.SwitchReturn(&f.Context, &to.Context, c.q.release())
}

// isNear says whether the first node is of a kind and the own one of a fiber of
// me's scheduler, which is off its stack then; under the latch.
//
//go:nosplit // see latch
func (q *queue) isNear(me *worker, kind uint8) bool {
	n := nodeAt(q.first)
	return n != nil && n.own && n.kind == kind && n.owner().own().local(me)
}

// shift takes the first node out; under the latch.
//
//go:nosplit // see latch
func (q *queue) shift() *node {
	n := nodeAt(q.first)
	q.first = n.next
	if n.next == 0 {
		q.last = 0
	} else {
		nodeAt(n.next).prev = 0
	}
	n.queued = false
	return n
}

// outside is a send or recv with a limit, or of one that is no fiber.
func (c *channel) outside(kind uint8, value unsafe.Pointer, size uintptr, l *Limit) error {
	if err := c.once(kind, value, size); err != ErrNotReady {
		return err
	}
	return c.within(kind, value, size, l)
}

// once is an attempt alone.
func (c *channel) once(kind uint8, value unsafe.Pointer, size uintptr) error {
	if c == nil {
		return ErrNotReady
	}
	me, _ := here()
	me.needRoom()
	c.q.latch.lock()
	n, out := c.try(me, kind, value, size)
	c.q.latch.unlock()
	if n != nil {
		n.resume(me)
	}
	return outcomes[out]
}

//go:nosplit // see latch
func chanWhy(kind uint8) why {
	if kind == toSend {
		return whySend
	}
	return whyRecv
}

// within is the rest of a send or recv with a limit, or of one that is no fiber,
// or cannot stop just now. It begins anew.
func (c *channel) within(kind uint8, value unsafe.Pointer, size uintptr, l *Limit) error {
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return c.waitHosted(kind, value, size, b)
	}
	var w bounded
	return c.waitAs(&w, kind, value, size, b)
}

// waitHosted is within on a goroutine, whose stack may move.
func (c *channel) waitHosted(kind uint8, value unsafe.Pointer, size uintptr, b bound) error {
	w, box := newBounded(unsafe.Pointer(c)), newBox(size)
	if kind == toSend {
		move(box, value, size)
	}
	err := c.waitAs(w, kind, box, size, b)
	if kind == toRecv && err == nil {
		move(value, box, size)
	}
	runtime.KeepAlive(box)
	return err
}

// newBox returns memory for a value on the Go heap.
//
//go:noinline // it must not be put on the stack
func newBox(size uintptr) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
}

// waitAs is within with w to wait.
func (c *channel) waitAs(w *bounded, kind uint8, value unsafe.Pointer, size uintptr, b bound) error {
	me, f := here()
	me.needRoom()
	w.begin(me, f, !b.none())
	w.value, w.kind = uintptr(value), kind
	c.q.latch.lock()
	n, out := c.try(me, kind, value, size)
	if out != notReady {
		c.q.latch.unlock()
		if n != nil {
			n.resume(me)
		}
		return outcomes[out]
	}
	c.q.add(&w.node)
	c.q.latch.unlock()
	err := w.suspendWithin(me, f, chanWhy(kind), b, &w.cancel)
	if err != nil {
		me, _ = here()
		w.leave(me)
	} else if !w.ok {
		err = ErrChanClosed
	}
	runtime.KeepAlive(w)
	return err
}

// forever is the wait at a nil channel.
func forever(l *Limit, reason why) error {
	b, err := l.bound()
	if err != nil {
		return err
	}
	if asm.Current() == nil {
		return foreverAs(newBounded(nil), reason, b)
	}
	var w bounded
	return foreverAs(&w, reason, b)
}

func foreverAs(w *bounded, reason why, b bound) error {
	me, f := here()
	w.begin(me, f, !b.none())
	w.nodes = uintptr(unsafe.Pointer(w))
	return w.suspendWithin(me, f, reason, b, &w.cancel)
}

//go:nosplit // see latch
func (c *channel) close() error {
	me, _ := here()
	me.needRoom()
	c.q.latch.lock()
	if c.closed {
		c.q.latch.unlock()
		return ErrChanClosed
	}
	c.closed = true
	n := c.q.takeAll(me) // ok of each is false
	c.q.latch.unlock()
	n.resumeAll(me)
	return nil
}

func (c *channel) length() int {
	c.q.latch.lock()
	n := c.count
	c.q.latch.unlock()
	return int(n)
}
