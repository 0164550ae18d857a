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
	if c.bare().send(unsafe.Pointer(&v), unsafe.Sizeof(v)) {
		return nil
	}
	return ErrChanClosed
}

// SendWithin is Send with a limit.
//
// Errors: ErrChanClosed, ErrTimeout, ErrCanceled; v has not been sent then.
func (c *Chan[T]) SendWithin(v T, l Limit) error {
	b := c.bare()
	if b == nil {
		return forever(&l, whySendNil)
	}
	return b.outside(toSend, noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), &l)
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
	ok = c.bare().recv(unsafe.Pointer(&v), unsafe.Sizeof(v))
	return v, ok
}

// RecvWithin is Recv with a limit.
//
// Errors: ErrChanClosed, ErrTimeout, ErrCanceled; no value has been taken then.
func (c *Chan[T]) RecvWithin(l Limit) (v T, err error) {
	b := c.bare()
	if b == nil {
		return v, forever(&l, whyRecvNil)
	}
	err = b.outside(toRecv, noescape(unsafe.Pointer(&v)), unsafe.Sizeof(v), &l)
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
