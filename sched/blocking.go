package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// helpers are threads that make blocking calls for fibers. There are as many as
// calls have been under way at one time, up to maxHelpers; calls beyond that wait
// for a thread.
type helpers struct {
	mu      futex.Mutex
	first   uintptr // *call, oldest first
	last    uintptr
	threads int
	idle    int
	word    uint32 // futex word, counts what helpers are woken for
	stopped bool
	handles [maxHelpers]lwp.Thread
}

const (
	maxHelpers  = 256
	helperStack = lwp.DefaultStackSize
)

// A call lies on the stack of the fiber that waits for it.
type call struct {
	fn, arg uintptr
	f       uintptr // *fiber
	next    uintptr // *call
	failed  bool
}

// Blocking runs fn(arg) on a thread that is no worker and waits for it: the
// worker goes on with other fibers while fn sleeps in the kernel. fn is
// freestanding code with a stack of lwp.DefaultStackSize; it is not on a fiber.
//
// Context: fiber. Elsewhere fn(arg) is called where it is.
// Errors: ErrNilFunc; those of lwp.Start if no thread can be made and none is there.
// A fault of fn is reported on standard error, and returned as ErrCall.
func Blocking[T any](fn func(*T), arg *T) error {
	if fn == nil {
		return ErrNilFunc
	}
	w := self()
	if w == nil || w.idle() {
		fn(arg)
		return nil
	}
	k := call{fn: *(*uintptr)(unsafe.Pointer(&fn)), arg: uintptr(unsafe.Pointer(arg))}
	return w.block(&k)
}

func (w *worker) block(k *call) error {
	f := w.running()
	c := w.core
	k.f = uintptr(unsafe.Pointer(f))
	c.blocked.Add(1)
	w.call(submitFn, noescape(unsafe.Pointer(k)))
	for {
		word := atomic.LoadUint64(&f.word)
		if word&fired != 0 {
			break
		}
		f.stop(blocking, "blocking call", w.clock)
		to := w.next()
		if asm.SwitchIf(&f.Context, &to.Context, &f.word, word, word|asleep) {
			break
		}
		w.putBack(to)
		w.goesOn(f)
	}
	atomic.AndUint64(&f.word, ^uint64(fired))
	if k.failed {
		return ErrCall
	}
	return nil
}

var submitFn = func(p unsafe.Pointer) {
	k := (*call)(p)
	c := (*fiber)(pointer(k.f)).core()
	h := &c.helpers
	h.mu.Lock()
	if h.last == 0 {
		h.first = uintptr(p)
	} else {
		(*call)(pointer(h.last)).next = uintptr(p)
	}
	h.last = uintptr(p)
	more := h.idle == 0 && h.threads < maxHelpers
	slot := 0
	if more {
		for h.handles[slot] != (lwp.Thread{}) {
			slot++
		}
		h.threads++
	} else if h.idle > 0 {
		h.idle--
	}
	h.word++
	h.mu.Unlock()
	if !more {
		futex.Wake(&h.word, 1)
		return
	}
	t, err := lwp.StartAttr((*core).helper, c, lwp.Attr{Name: "sched/blocking", StackSize: helperStack})
	h.mu.Lock()
	if err == nil {
		h.handles[slot] = t
	} else {
		h.threads--
	}
	alone := err != nil && h.threads == 0
	h.mu.Unlock()
	if alone {
		// No thread is there to make the call and none can be had: this one
		// makes it, and its fibers wait.
		c.serve(false)
	}
}

// helper is the life of a helper.
func (c *core) helper() { c.serve(true) }

// serve makes calls until there are none, or for ever.
func (c *core) serve(forever bool) {
	h := &c.helpers
	for {
		h.mu.Lock()
		k := (*call)(pointer(h.first))
		if k == nil {
			if !forever || h.stopped {
				h.mu.Unlock()
				return
			}
			h.idle++
			v := h.word
			h.mu.Unlock()
			for atomic.LoadUint32(&h.word) == v {
				futex.Wait(&h.word, v)
			}
			continue
		}
		if h.first = k.next; h.first == 0 {
			h.last = 0
		}
		h.mu.Unlock()
		f := (*fiber)(pointer(k.f))
		fn := *(*func(unsafe.Pointer))(unsafe.Pointer(&k.fn))
		fn(pointer(k.arg))
		f.fire() // k is gone from here on
		c.blocked.Add(-1)
	}
}

// stop ends the helpers.
func (h *helpers) stop() {
	h.mu.Lock()
	h.stopped = true
	h.word++
	h.mu.Unlock()
	futex.Wake(&h.word, futex.All)
	for _, t := range h.handles {
		if t != (lwp.Thread{}) {
			t.Join()
		}
	}
}
