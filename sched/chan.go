package sched

import (
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
// memory as long as c: in one struct with it, for instance. On a goroutine it
// must not be on the stack, which moves.
func (c *Chan[T]) Init(buf []T) {
	if asm.Current() == nil {
		checkPlace(unsafe.Pointer(unsafe.SliceData(buf)))
	}
	c.c = channel{buf: uintptr(unsafe.Pointer(unsafe.SliceData(buf))), cap: uintptr(len(buf))}
}

// bare returns c without its type; nil if c is nil.
func (c *Chan[T]) bare() *channel { return (*channel)(unsafe.Pointer(c)) }

// Send sends v, and waits until there is room for it, or a receiver.
//
// Errors: ErrChanClosed.
func (c *Chan[T]) Send(v T) error {
	b := c.bare()
	if b == nil {
		return forever(nil, whySendNil)
	}
	b.q.latch.lock()
	if b.hasRoom() {
		move(b.back(unsafe.Sizeof(v)), noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v))
		b.q.latch.unlock()
		return nil
	}
	me, err := b.send(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), nil)
	if me == nil {
		return err
	}
	var s single
	f, to := b.q.halt(me, &s, uintptr(unsafe.Pointer(&v)), toSend, whySend)
	asm.Switch(&f.Context, &to.Context, b.q.release())
	if !s.ok {
		return ErrChanClosed
	}
	return nil
}

// SendWithin is Send with a limit.
//
// Errors: ErrChanClosed, ErrTimeout, ErrCanceled; v has not been sent then.
func (c *Chan[T]) SendWithin(v T, l Limit) error {
	b := c.bare()
	if b == nil {
		return forever(&l, whySendNil)
	}
	b.q.latch.lock()
	_, err := b.send(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), &l)
	return err
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
	b := c.bare()
	if b == nil {
		forever(nil, whyRecvNil)
		return v, false
	}
	b.q.latch.lock()
	if b.hasValue() {
		move(noescape(unsafe.Pointer(&v)), b.front(unsafe.Sizeof(v)), unsafe.Sizeof(v))
		b.q.latch.unlock()
		return v, true
	}
	me, err := b.recv(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), nil)
	if me == nil {
		return v, err == nil
	}
	var s single
	f, to := b.q.halt(me, &s, uintptr(unsafe.Pointer(&v)), toRecv, whyRecv)
	asm.Switch(&f.Context, &to.Context, b.q.release())
	return v, s.ok
}

// RecvWithin is Recv with a limit.
//
// Errors: ErrChanClosed, ErrTimeout, ErrCanceled; no value has been taken then.
func (c *Chan[T]) RecvWithin(l Limit) (v T, err error) {
	b := c.bare()
	if b == nil {
		return v, forever(&l, whyRecvNil)
	}
	b.q.latch.lock()
	_, err = b.recv(noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), &l)
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
	return int(c.c.cap)
}
