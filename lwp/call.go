package lwp

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// A call lies on the stack of the thread or green thread that waits for it; or
// in a block, with the copy of the argument after it, where that one may give up.
type call struct {
	Parker
	h       uintptr // *handler
	arg     uintptr
	fault   uintptr // *Fault, if the body panicked
	outcome uint32
	phase   uint32
	block   uint32 // it is a block
	turn    uint32 // its body is run by the one who waits, a goroutine
}

// Values of call.outcome.
const (
	callReturned = iota
	callPanicked
	callExited
	callRefused
	callUnqueued // refused at once: nobody else has it
)

// Values of call.phase. Of the two who leave callPending, the second frees a block.
const (
	callPending = iota
	callDone
	callAbandoned
)

// call is Call on a thread or green thread.
func (h *handler) call(arg uintptr) error {
	if current().proc.on {
		return ErrHosted
	}
	var c call
	c.h, c.arg = uintptr(unsafe.Pointer(h)), arg
	asm.ParkRoom() // c must not be given up while a server has it
	_, err := (*call)(pointer(uintptr(unsafe.Pointer(&c)))).await(futex.Never)
	return err
}

// newCall returns a call in a block, with room for the argument.
func (h *handler) newCall() (*call, error) {
	if current().proc.on {
		return nil, ErrHosted
	}
	r := copying{size: h.size}
	onStack(newCallFn, pointer(uintptr(unsafe.Pointer(&r))))
	c := (*call)(pointer(r.block))
	if c == nil {
		return nil, ErrMemory
	}
	c.h, c.block, c.arg = uintptr(unsafe.Pointer(h)), 1, r.block+callSize
	return c, nil
}

type copying struct{ size, block uintptr }

const callSize = (unsafe.Sizeof(call{}) + 15) &^ 15

var (
	newCallFn = func(p unsafe.Pointer) {
		r := (*copying)(p)
		r.block = uintptr(newBlock(callSize + r.size))
	}
	freeCallFn = func(p unsafe.Pointer) {
		c := (*call)(p)
		freeBlock(p, callSize+(*handler)(pointer(c.h)).size)
	}
	submitFn = func(p unsafe.Pointer) {
		c := (*call)(p)
		h := (*handler)(pointer(c.h))
		h.mu.Lock()
		now := h.admit(c)
		h.mu.Unlock()
		if now {
			submit(c)
		}
	}
)

func (c *call) free() { onStack(freeCallFn, unsafe.Pointer(c)) }

// await submits c and waits for its end; done says that c is the caller's again.
func (c *call) await(d futex.Deadline) (done bool, err error) {
	c.Init()
	onStack(submitFn, unsafe.Pointer(c))
	if c.outcome == callUnqueued {
		c.Cancel()
		return true, ErrHandlerClosed
	}
	if !c.Await(d, "handler") {
		if atomic.CompareAndSwapUint32(&c.phase, callPending, callAbandoned) {
			c.Cancel()
			return false, ErrDeadline
		}
		c.Await(futex.Never, "handler")
	}
	return true, c.result()
}

// result turns the outcome into an error of the caller's.
func (c *call) result() error {
	switch c.outcome {
	case callPanicked:
		f := (*Fault)(pointer(c.fault))
		if t := current(); t != nil && t.domain != 0 {
			return (*Domain)(pointer(t.domain)).Keep(f)
		}
		return KeepFault(f)
	case callExited:
		return ErrGoexit
	case callRefused:
		return ErrHandlerClosed
	}
	return nil
}

// run runs the body of c, on a server, and returns the call whose turn it is then.
func (c *call) run() (next *call) {
	h := (*handler)(pointer(c.h))
	if c.turn != 0 {
		c.Signal()
		return nil
	}
	outcome, fault := uint32(callExited), (*Fault)(nil)
	defer func() {
		// Not by a plain call below: a body can end the goroutine.
		c.finish(outcome, fault)
		next = h.left()
		if outcome == callExited && next != nil {
			next.dispatch()
		}
	}()
	if atomic.LoadUint32(&c.phase) == callAbandoned {
		outcome = callReturned
		return nil
	}
	outcome, fault = h.try(pointer(c.arg))
	return nil
}

// finish lets the one who waits for c go on, if anybody does.
func (c *call) finish(outcome uint32, fault *Fault) {
	c.outcome, c.fault = outcome, uintptr(unsafe.Pointer(fault))
	if c.block == 0 || atomic.CompareAndSwapUint32(&c.phase, callPending, callDone) {
		c.Signal()
		return
	}
	if fault != nil {
		freeFault(fault)
	}
	c.free()
}

// try calls the body.
func (h *handler) try(arg unsafe.Pointer) (outcome uint32, fault *Fault) {
	panicked := true
	defer func() {
		if !panicked {
			return
		}
		if v := recover(); v != nil {
			outcome, fault = callPanicked, panicFault(v)
		}
	}()
	h.body(arg)
	panicked = false
	return callReturned, nil
}

// panicFault describes a panic, in the deferred call that recovers it.
func panicFault(v any) *Fault {
	f := allocFault()
	if f == nil {
		return &lostFault
	}
	*f = Fault{Reason: HandlerPanic}
	f.nmsg = copy(f.msg[:], panicText(v))
	f.n = runtime.Callers(4, f.pcs[:]) // without this, try's deferred call, the panic
	if f.n > 0 {
		f.PC = f.pcs[0]
	}
	return f
}

// panicText is what v says of itself, or its type where that panics too.
func panicText(v any) (s string) {
	defer func() {
		if recover() != nil {
			s = fmt.Sprintf("%T", v)
		}
	}()
	switch v := v.(type) {
	case error:
		return v.Error()
	case fmt.Stringer:
		return v.String()
	}
	return fmt.Sprint(v)
}
