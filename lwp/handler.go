package lwp

import (
	"context"
	"errors"
	"sync"
	"time"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// Errors of handlers. A body that panicked is a *Fault, with HandlerPanic.
var (
	ErrHandlerClosed = errors.New("lwp: the handler is closed")
	ErrGoexit        = errors.New("lwp: the handler's function has ended its goroutine by runtime.Goexit")
	ErrDeadline      = errors.New("lwp: the time is up")
	ErrMemory        = errors.New("lwp: no memory")
)

// A Handler is hosted code that threads and green threads can call:
//
//	h, err := lwp.NewHandler(func(q *query) { q.n, q.errno = lookUp(q.key) })
//	...
//	err = h.Call(&q) // on a thread
//
// The function runs on a goroutine, with all that a goroutine may do, one for
// each call that is under way. The caller waits in the manner of its kind: a
// thread sleeps, a green thread lets others run on its worker and counts as
// waiting for somebody outside, so that there is no deadlock and Close of the
// scheduler waits for it. On a goroutine Call calls the function itself.
//
// While nothing is called nothing runs, and no thread of Go's is tied up for a
// caller that waits or a function that does: see host.
//
// # The argument
//
// The function works on the caller's own *T, on a thread's stack or off the
// heap; on a copy if the caller is a goroutine, whose stack moves. It may store there what is no pointer, and pointers that the collector
// need not see: those to objects on the Go heap keep nothing alive. It must not
// keep the address past its return. With a deadline it works on a copy.
//
// # Errors
//
// A panic comes back as a *Fault whose Reason is HandlerPanic, with the first
// 120 bytes of what was panicked with and the trace of the goroutine. It is good
// as long as one from Join is: on a thread or a green thread until the same gets
// another, or ends. runtime.Goexit comes back as ErrGoexit; on a goroutine it
// ends the caller, whose own goroutine it is.
//
// The function may call whatever the caller could be waiting for: start, join and
// unpark, also of the scheduler that the caller is a green thread of, whose
// Close and Wait from here would wait for each other and never end. Another call of the
// same handler, too, unless all of HandlerConfig.Limit are under way.
//
// A thread that ends while it waits does not exist: faults and signals that end
// one are of its own making. Exit hooks and destructors can call handlers.
type Handler[T any] struct{ handler }

// handler is a Handler without its type. It lies on the Go heap; threads write
// scalars to it.
type handler struct {
	body  func(arg unsafe.Pointer)
	limit int
	size  uintptr // of T

	mu      futex.Mutex
	closed  bool
	active  int   // bodies that run or are about to, turns of goroutines included
	waiting queue // of *call, for their turn
	over    chan struct{}
}

// HandlerConfig says how a handler is to be. The zero HandlerConfig has no bounds.
type HandlerConfig struct {
	Limit int // functions that run at a time; further calls wait for their turn, in order. 0: no bound
}

// handlers are those that are open or have bodies under way: calls refer to them
// by address.
var handlers struct {
	mu   sync.Mutex
	open map[*handler]struct{}
}

// NewHandler returns a handler that calls fn.
//
// Context: goroutine.
// Errors: ErrNilFunc, ErrHosted.
func NewHandler[T any](fn func(*T)) (*Handler[T], error) {
	return NewHandlerConfig(fn, HandlerConfig{})
}

// NewHandlerConfig is NewHandler with bounds.
//
// Errors: also ErrAttr for a negative Limit.
func NewHandlerConfig[T any](fn func(*T), config HandlerConfig) (*Handler[T], error) {
	switch {
	case asm.Current() != nil:
		return nil, ErrHosted
	case fn == nil:
		return nil, ErrNilFunc
	case config.Limit < 0:
		return nil, ErrAttr
	}
	h := &Handler[T]{handler{
		body:  func(arg unsafe.Pointer) { fn((*T)(arg)) },
		limit: config.Limit,
		size:  unsafe.Sizeof(*(*T)(nil)),
		over:  make(chan struct{}),
	}}
	startHost()
	handlers.mu.Lock()
	defer handlers.mu.Unlock()
	if handlers.open == nil {
		handlers.open = map[*handler]struct{}{}
	}
	handlers.open[&h.handler] = struct{}{}
	return h, nil
}

// Call has the handler's function run with arg and waits until it has returned.
//
// Context: goroutine, thread; green thread with a stack of 4 KiB, or 2 KiB and little else
// on it.
// Errors: ErrNilFunc for a handler that is nil or zero; ErrHandlerClosed, ErrGoexit; *Fault if the function panicked; ErrHosted
// in a process of Fork or StartProcess, where there are no goroutines.
// Ordering: what happens before Call happens before the function runs; its end
// happens before Call returns.
func (h *Handler[T]) Call(arg *T) error {
	if h.zero() {
		return ErrNilFunc
	}
	if asm.Current() == nil {
		return h.callHere(arg)
	}
	return h.call(uintptr(unsafe.Pointer(arg)))
}

// callHere is Call on a goroutine. What arg points to may be on its stack, and the
// function may have other goroutines work on it: they get a copy.
func (h *Handler[T]) callHere(arg *T) error {
	own := new(T)
	*own = *arg
	defer func() { *arg = *own }()
	return h.direct(unsafe.Pointer(own), nil)
}

// CallFor is CallUntil with a bound on the time.
func (h *Handler[T]) CallFor(arg *T, d time.Duration) error { return h.CallUntil(arg, futex.After(d)) }

// CallUntil is Call that gives up at d. The function gets a copy of *arg, which
// is copied back when it has returned in time. It goes on when its caller has
// given up, with nobody to see what comes of it, and Close waits for it; if it
// has not begun by then, it does not begin.
//
// Errors: also ErrDeadline; ErrMemory if there is none for the copy.
func (h *Handler[T]) CallUntil(arg *T, d futex.Deadline) error {
	if h.zero() {
		return ErrNilFunc
	}
	if asm.Current() == nil {
		return h.callHereUntil(arg, d)
	}
	asm.ParkRoom() // the call must not be given up while a server has it
	c, err := h.newCall()
	if err != nil {
		return err
	}
	*(*T)(pointer(c.arg)) = *arg
	done, err := c.await(d)
	if done {
		if err == nil {
			*arg = *(*T)(pointer(c.arg))
		}
		c.free()
	}
	return err
}

func (h *Handler[T]) callHereUntil(arg *T, d futex.Deadline) error {
	ctx, cancel := context.WithTimeout(context.Background(), d.Remaining())
	defer cancel()
	err := h.CallContext(ctx, arg)
	if err == context.DeadlineExceeded {
		return ErrDeadline
	}
	return err
}

// CallContext is Call that gives up when ctx is done, in the manner of CallUntil.
//
// Context: goroutine.
// Errors: also ctx.Err(); ErrHosted on a thread.
func (h *Handler[T]) CallContext(ctx context.Context, arg *T) error {
	switch {
	case asm.Current() != nil:
		return ErrHosted
	case h.zero():
		return ErrNilFunc
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	own := new(T)
	*own = *arg
	over := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() { over <- err }()
		err = h.direct(unsafe.Pointer(own), ctx.Done())
	}()
	select {
	case err := <-over:
		if err == nil {
			*arg = *own
		} else if err == ErrDeadline { // it had not begun
			err = ctx.Err()
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close has further calls refused, those that wait for their turn too, and waits
// until the functions that run have returned. A function that calls it on its own
// handler waits for itself.
//
// Context: goroutine.
// Errors: ErrHandlerClosed on a second call, ErrHosted.
func (h *Handler[T]) Close() error { return h.CloseContext(context.Background()) }

// CloseContext is Close that does not wait longer than until ctx is done. The
// handler is closed then, and the functions go on.
//
// Errors: also ctx.Err().
func (h *Handler[T]) CloseContext(ctx context.Context) error {
	switch {
	case asm.Current() != nil:
		return ErrHosted
	case h.zero():
		return ErrNilFunc
	}
	if !h.refuse() {
		return ErrHandlerClosed
	}
	select {
	case <-h.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// zero says that h was not made by NewHandler.
func (h *Handler[T]) zero() bool { return h == nil || h.over == nil }

// refuse closes h, or reports that it was.
func (h *handler) refuse() bool {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return false
	}
	h.closed = true
	refused, last := h.waiting, h.active == 0
	h.waiting = queue{}
	h.mu.Unlock()
	for p := refused.pop(); p != nil; p = refused.pop() {
		(*call)(unsafe.Pointer(p)).finish(callRefused, nil)
	}
	if last {
		h.ended()
	}
	return true
}

// ended is what comes after the last body of a handler that is closed.
func (h *handler) ended() {
	handlers.mu.Lock()
	delete(handlers.open, h)
	handlers.mu.Unlock()
	close(h.over)
}

// admit counts a call in, or says that it has to wait for its turn, or is
// refused; under h.mu.
func (h *handler) admit(c *call) (now bool) {
	switch {
	case h.closed:
		c.outcome = callUnqueued
	case h.limit > 0 && h.active == h.limit:
		h.waiting.push(&c.Parker)
	default:
		h.active++
		return true
	}
	return false
}

// left counts a call out whose body is done, and returns the one whose turn it is.
func (h *handler) left() (next *call) {
	h.mu.Lock()
	last := false
	if next = (*call)(unsafe.Pointer(h.waiting.pop())); next == nil {
		h.active--
		last = h.closed && h.active == 0
	}
	h.mu.Unlock()
	if last {
		h.ended()
	}
	return next
}

// direct is Call on a goroutine, which waits for its turn until enough is closed.
func (h *handler) direct(arg unsafe.Pointer, enough <-chan struct{}) error {
	if err := h.takeTurn(enough); err != nil {
		return err
	}
	defer func() { // also where the body ends the goroutine
		if next := h.left(); next != nil {
			next.dispatch()
		}
	}()
	if outcome, fault := h.try(arg); outcome == callPanicked {
		return KeepFault(fault)
	}
	return nil
}

// dispatch has the body of c run, whose turn it is.
func (c *call) dispatch() {
	if c.turn != 0 {
		c.Signal()
	} else {
		submit(c)
	}
}

// takeTurn counts a goroutine in, which waits in a channel operation if it has to.
func (h *handler) takeTurn(enough <-chan struct{}) error {
	c := (*call)(newBlock(callSize))
	if c == nil {
		return ErrMemory
	}
	defer freeBlock(unsafe.Pointer(c), callSize)
	c.turn = 1
	c.h = uintptr(unsafe.Pointer(h))
	ch := c.initGate()
	defer c.endGate()
	h.mu.Lock()
	now := h.admit(c)
	h.mu.Unlock()
	switch {
	case now:
		return nil
	case c.outcome == callUnqueued:
		return ErrHandlerClosed
	}
	select {
	case <-ch:
	case <-enough:
		if h.giveUp(c) {
			return ErrDeadline
		}
		<-ch
	}
	if c.outcome == callRefused {
		return ErrHandlerClosed
	}
	return nil
}

// giveUp takes c out of those who wait for their turn, if it still is there.
func (h *handler) giveUp(c *call) (found bool) {
	h.mu.Lock()
	var rest queue
	for p := h.waiting.pop(); p != nil; p = h.waiting.pop() {
		if p == &c.Parker {
			found = true
			continue
		}
		rest.push(p)
	}
	h.waiting = rest
	h.mu.Unlock()
	return found
}
