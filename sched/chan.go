package sched

import (
	"runtime"
	"unsafe"

	"lwprt/asm"
)

// A Chan carries values between fibers, threads and goroutines, as a Go channel
// does between goroutines: first in, first out, and a receive that finds it
// closed and empty ends at once. The zero Chan has no buffer: a Send waits for
// the Recv that takes its value. A Chan must not be copied after first use.
//
// Values are copied as bytes. The collector does not see those that are on
// their way: where T holds a pointer into the Go heap, something else keeps
// what it leads to reachable.
//
// Go's channels panic on a Send or Close of a closed channel; a fiber would die
// of that, so here both are errors. A nil *Chan is never ready.
//
// Context: fiber, thread or goroutine, for every method; a goroutine keeps its
// thread while it waits.
// Ordering: a Send happens before the return of the Recv that gets its value,
// that Recv before the return of the Send if there is no buffer; Close happens
// before a return that says closed.
type Chan[T any] struct {
	_ noCopy
	c channel
}

// MakeChan returns a channel with a buffer of n values on the Go heap.
//
// Context: goroutine.
func MakeChan[T any](n int) *Chan[T] {
	m := new(struct {
		Chan[T]
		buf []T
	})
	m.buf = make([]T, n)
	m.Init(m.buf)
	return &m.Chan
}

// Init gives c, which is not in use, a buffer of len(buf) values. buf stays in
// memory as long as c: in one struct with it, for instance.
func (c *Chan[T]) Init(buf []T) {
	c.c = channel{buf: uintptr(unsafe.Pointer(unsafe.SliceData(buf))), cap: len(buf)}
}

// bare returns c without its type; nil if c is nil.
func (c *Chan[T]) bare() *channel { return (*channel)(unsafe.Pointer(c)) }

// Send sends v, and waits until there is room for it, or a receiver.
//
// Errors: ErrChanClosed.
func (c *Chan[T]) Send(v T) error {
	return c.bare().send(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), nil)
}

// SendWithin is Send with a limit.
//
// Errors: ErrChanClosed, ErrTimeout, ErrCanceled; v has not been sent then.
func (c *Chan[T]) SendWithin(v T, l Limit) error {
	return c.bare().send(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), &l)
}

// TrySend is Send that does not wait.
//
// Errors: ErrChanClosed, ErrNotReady.
func (c *Chan[T]) TrySend(v T) error {
	return c.bare().once(toSend, noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v))
}

// Recv returns the next value, and waits until there is one; or the zero value
// and false if c is closed and there is none.
func (c *Chan[T]) Recv() (v T, ok bool) {
	ok = c.bare().recv(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), nil) == nil
	return v, ok
}

// RecvWithin is Recv with a limit.
//
// Errors: ErrChanClosed, ErrTimeout, ErrCanceled; no value has been taken then.
func (c *Chan[T]) RecvWithin(l Limit) (v T, err error) {
	err = c.bare().recv(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), &l)
	return v, err
}

// TryRecv is Recv that does not wait.
//
// Errors: ErrChanClosed, ErrNotReady.
func (c *Chan[T]) TryRecv() (v T, err error) {
	err = c.bare().once(toRecv, noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v))
	return v, err
}

// Close says that nothing more will be sent. Receivers get what is in the
// buffer, then the end; senders that wait get ErrChanClosed.
//
// Errors: ErrChanClosed for a second Close; ErrNilChan.
func (c *Chan[T]) Close() error {
	if c == nil {
		return ErrNilChan
	}
	return c.bare().close()
}

// Len returns how many values are in the buffer.
func (c *Chan[T]) Len() int {
	if c == nil {
		return 0
	}
	return c.bare().length()
}

// Cap returns how many values fit into the buffer.
func (c *Chan[T]) Cap() int {
	if c == nil {
		return 0
	}
	return c.c.cap
}

// A channel is a Chan but for the type. In its queue are senders, or receivers;
// both only where one Select waits for either.
type channel struct {
	q      queue
	closed bool
	head   int // where the oldest value is
	count  int
	cap    int
	buf    uintptr
}

// Kinds of nodes.
const (
	toSend = 1 + iota
	toRecv
)

// at returns where the i-th value is, counted from the oldest.
//
//go:nosplit // see latch
func (c *channel) at(i int, size uintptr) unsafe.Pointer {
	if i += c.head; i >= c.cap {
		i -= c.cap
	}
	return pointer(c.buf + uintptr(i)*size)
}

// put adds a value to the buffer, get takes the oldest; under the latch.
//
//go:nosplit // see latch
func (c *channel) put(value unsafe.Pointer, size uintptr) {
	move(c.at(c.count, size), value, size)
	c.count++
}

//go:nosplit // see latch
func (c *channel) get(value unsafe.Pointer, size uintptr) {
	move(value, c.at(0, size), size)
	if c.head++; c.head == c.cap {
		c.head = 0
	}
	c.count--
}

// move copies a value, as bytes.
//
//go:nosplit // see latch
func move(to, from unsafe.Pointer, size uintptr) {
	if size == 8 {
		*(*uint64)(to) = *(*uint64)(from)
		return
	}
	copy(unsafe.Slice((*byte)(to), size), unsafe.Slice((*byte)(from), size))
}

// partner takes the first node of a kind, or returns nil. There is a node in
// the queue; under the latch.
//
//go:nosplit // see latch
func (c *channel) partner(me *worker, kind uint8) *node {
	if n := nodeAt(c.q.first); n.kind == kind {
		if w := n.of(); !w.many && w.local(me) {
			c.q.remove(n)
			return n
		}
	}
	return c.partnerSlow(me, kind)
}

//go:nosplit // see latch
func (c *channel) partnerSlow(me *worker, kind uint8) *node {
	for at := c.q.first; at != 0; {
		n := nodeAt(at)
		at = n.next
		if n.kind == kind {
			c.q.remove(n)
			if n.claimed(me) {
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
		c.put(value, size)
		return nil, done
	}
	return nil, notReady
}

//go:nosplit // see latch
func (c *channel) tryRecv(me *worker, value unsafe.Pointer, size uintptr) (n *node, out outcome) {
	if c.count > 0 {
		c.get(value, size)
		if c.q.first != 0 {
			if n = c.partner(me, toSend); n != nil {
				c.put(pointer(n.value), size)
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

func (c *channel) send(value unsafe.Pointer, size uintptr, l *Limit) error {
	me := self()
	if c == nil || me == nil || me.idle() || l != nil {
		return c.within(toSend, value, size, l)
	}
	c.q.latch.lock(me)
	n, out := c.trySend(me, value, size)
	if out == notReady {
		if !c.q.await(me, uintptr(value), toSend, whySend) {
			return ErrChanClosed
		}
		return nil
	}
	c.q.latch.unlock()
	if n != nil {
		n.resume(me)
	}
	return outcomes[out]
}

func (c *channel) recv(value unsafe.Pointer, size uintptr, l *Limit) error {
	me := self()
	if c == nil || me == nil || me.idle() || l != nil {
		return c.within(toRecv, value, size, l)
	}
	c.q.latch.lock(me)
	n, out := c.tryRecv(me, value, size)
	if out == notReady {
		if !c.q.await(me, uintptr(value), toRecv, whyRecv) {
			return ErrChanClosed
		}
		return nil
	}
	c.q.latch.unlock()
	if n != nil {
		n.resume(me)
	}
	return outcomes[out]
}

// once is an attempt alone.
func (c *channel) once(kind uint8, value unsafe.Pointer, size uintptr) error {
	if c == nil {
		return ErrNotReady
	}
	me, _ := here()
	c.q.latch.lock(me)
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

// within is send or recv with a limit, of one that is no fiber, or of nothing.
func (c *channel) within(kind uint8, value unsafe.Pointer, size uintptr, l *Limit) error {
	if c == nil {
		return forever(l, whySendNil+why(kind-toSend))
	}
	if err := c.once(kind, value, size); err != ErrNotReady {
		return err
	}
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
	w.begin(me, f, !b.none())
	w.value, w.kind = uintptr(value), kind
	c.q.latch.lock(me)
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
	c.q.latch.lock(me)
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
	me, _ := here()
	c.q.latch.lock(me)
	n := c.count
	c.q.latch.unlock()
	return n
}
