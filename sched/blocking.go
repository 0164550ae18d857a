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
	queued  int    // calls
	idle    int    // threads without a call, some of which may be on their way to a queued one
	word    uint32 // futex word, counts what helpers are woken for
	stopped bool
	all     [maxHelpers]helper
}

type helper struct {
	core   *core
	thread lwp.Thread
	life   uint32  // counts the threads that it has been
	used   bool    // thread is to be joined
	dead   bool    // it ends or has ended, by a fault or lwp.Exit in a call
	call   uintptr // *call that it makes
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
	fault   uintptr // *lwp.Fault that fn has died of
	died    bool    // the helper has ended in fn
}

// Blocking runs fn(arg) on a thread that is no worker and waits for it: the
// worker goes on with other fibers while fn sleeps in the kernel. fn is
// freestanding code with a stack of lwp.DefaultStackSize; it is not on a fiber.
//
// Context: fiber. Elsewhere fn(arg) is called where it is.
// Where no thread can be made and none is there, the worker makes the call.
// Errors: ErrNilFunc; a *lwp.Fault if fn died of one.
func Blocking[T any](fn func(*T), arg *T) error {
	if fn == nil {
		return ErrNilFunc
	}
	w := self()
	if w == nil || w.idle() {
		fn(arg)
		return nil
	}
	var k call
	k.fn, k.arg = *(*uintptr)(unsafe.Pointer(&fn)), uintptr(unsafe.Pointer(arg))
	return w.block(&k)
}

func (w *worker) block(k *call) error {
	f := w.running()
	c := w.core
	k.f = uintptr(unsafe.Pointer(f))
	asm.StopRoom() // k must not be given up while a helper has it
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
	if k.died {
		self().call(replaceFn, unsafe.Pointer(c))
	}
	if k.fault != 0 {
		f.inherits(k.fault)
	}
	return f.joined()
}

var submitFn = func(p unsafe.Pointer) {
	k := (*call)(p)
	c := (*fiber)(pointer(k.f)).core()
	h := &c.helpers
	h.mu.Lock()
	k.next = 0
	if h.last == 0 {
		h.first = uintptr(p)
	} else {
		(*call)(pointer(h.last)).next = uintptr(p)
	}
	h.last = uintptr(p)
	h.queued++
	c.hire()
}

// replaceFn starts a helper for one that has died, which may have been one of
// as many as there can be, with calls that wait.
var replaceFn = func(p unsafe.Pointer) {
	c := (*core)(p)
	c.helpers.mu.Lock()
	c.hire()
}

// hire wakes or starts a helper, if there is a call for it. It gives mu back.
func (c *core) hire() {
	h := &c.helpers
	var x *helper
	if h.idle < h.queued {
		x = h.vacant(c)
	}
	h.word++
	life := uint32(0)
	if x != nil {
		life = x.life
	}
	h.mu.Unlock()
	if x == nil {
		futex.Wake(&h.word, 1)
		return
	}
	t, err := lwp.StartAttr((*helper).main, x, lwp.Attr{Name: "sched/blocking", StackSize: helperStack})
	h.mu.Lock()
	if err != nil {
		x.used = false
		h.threads--
	} else if x.life == life {
		x.thread = t
	}
	alone := err != nil && h.threads == 0
	h.mu.Unlock()
	if alone {
		// No thread is there to make the call and none can be had: this one
		// makes it, and its fibers wait. The call is not on a fiber.
		w := self()
		f := w.running()
		w.stopTurning()
		w.hasten() // a Join in the call must not take the short way
		w.setRunning(w.loop)
		c.serve(nil)
		w.setRunning(f)
	}
}

// vacant returns a helper to start, or nil when there are as many as there may
// be; under mu.
func (h *helpers) vacant(c *core) *helper {
	for i := range h.all {
		x := &h.all[i]
		if x.dead {
			x.thread.Join() // it ends, if it has not yet
			x.used, x.dead = false, false
		}
		if !x.used {
			x.used = true
			x.life++
			*(*uintptr)(unsafe.Pointer(&x.core)) = uintptr(unsafe.Pointer(c))
			h.threads++
			return x
		}
	}
	return nil
}

// main is the life of a helper.
func (x *helper) main() {
	lwp.OnExit((*helper).exit, x)
	x.core.serve(x)
}

// exit ends a call in which the helper was when it ended.
func (x *helper) exit() {
	k := (*call)(pointer(x.call))
	if k == nil {
		return
	}
	c := x.core
	h := &c.helpers
	h.mu.Lock()
	x.thread = lwp.Self() // its starter may not have written it yet
	x.dead = true
	h.threads--
	h.mu.Unlock()
	k.fault, k.died = uintptr(unsafe.Pointer(lwp.HoldFault())), true
	c.finish(k)
}

// finish lets the fiber go on that waits for k.
func (c *core) finish(k *call) {
	f := (*fiber)(pointer(k.f))
	f.fire() // k is gone from here on
	// Not before: all workers could be idle, and that be taken for a deadlock.
	// They can be idle now, and nobody have been told.
	c.blocked.Add(-1)
	c.mu.Lock()
	c.settle()
	c.mu.Unlock()
}

// serve makes calls until there are none, or on a helper for ever.
func (c *core) serve(x *helper) {
	h := &c.helpers
	for {
		h.mu.Lock()
		k := (*call)(pointer(h.first))
		if k == nil {
			if x == nil || h.stopped {
				h.mu.Unlock()
				return
			}
			h.idle++
			v := h.word
			h.mu.Unlock()
			for atomic.LoadUint32(&h.word) == v {
				futex.Wait(&h.word, v)
			}
			h.mu.Lock()
			h.idle--
			h.mu.Unlock()
			continue
		}
		h.queued--
		if h.first = k.next; h.first == 0 {
			h.last = 0
		}
		h.mu.Unlock()
		if x != nil {
			x.call = uintptr(unsafe.Pointer(k))
		}
		fn := *(*func(unsafe.Pointer))(unsafe.Pointer(&k.fn))
		fn(pointer(k.arg))
		if x != nil {
			x.call = 0
		}
		c.finish(k)
	}
}

// stop ends the helpers; no call is under way.
func (h *helpers) stop() {
	h.mu.Lock()
	h.stopped = true
	h.word++
	h.mu.Unlock()
	futex.Wake(&h.word, futex.All)
	for i := range h.all {
		if x := &h.all[i]; x.used {
			x.thread.Join()
		}
	}
}
