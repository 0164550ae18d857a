package lwp

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/tls"
)

// Start creates a thread that runs fn(arg), and returns its handle. The thread
// ends when fn returns, or by Exit. It must be joined or detached.
//
// Context: goroutine or thread. What a goroutine passes stays reachable for
// the collector until the thread is gone. What a thread passes must be off the
// Go heap, a package variable, or kept alive by that thread's own starter; fn
// then is a top-level function.
// Errors: ErrNilFunc; ErrExiting from a thread that is exiting; ErrRace;
// *UnsupportedError; *Error: EAGAIN for too many threads, ENOMEM.
// Ordering: what happens before Start happens before fn.
// Source: clone(2).
func Start[T any](fn func(*T), arg *T) (Thread, error) {
	return StartAttr(fn, arg, Attr{})
}

// StartAttr is Start for a thread with attributes.
//
// Errors: also ErrStackSize, ErrGuardSize and ErrAttr for values out of range,
// and an *Error for what the kernel refuses: EPERM and EINVAL of clone, setns,
// sched_setscheduler, setpriority or sched_setaffinity.
func StartAttr[T any](fn func(*T), arg *T, attr Attr) (Thread, error) {
	if fn == nil {
		return Thread{}, ErrNilFunc
	}
	// All func(*T) take their argument the same way.
	return start(*(*func(unsafe.Pointer))(unsafe.Pointer(&fn)), unsafe.Pointer(arg), &attr)
}

func start(fn func(unsafe.Pointer), arg unsafe.Pointer, a *Attr) (Thread, error) {
	me := current()
	if me == nil {
		if err := ready(); err != nil {
			return Thread{}, err
		}
		if a.FaultPolicy == CrashOnFault {
			crashes.once.Do(startCrashReporter)
		}
	} else if me.dying {
		return Thread{}, ErrExiting
	}
	if err := a.check(); err != nil {
		return Thread{}, err
	}
	if a.Strict {
		if err := strict(fn); err != nil {
			return Thread{}, err
		}
	}
	t, r, err := alloc()
	if err != nil {
		return Thread{}, err
	}
	r.fn, r.arg = *(*uintptr)(unsafe.Pointer(&fn)), uintptr(arg)
	if me == nil {
		setRoot(t.index(), fn, arg)
		r.flags |= rooted
	}
	if a.Detached {
		r.state.Store(detached)
	}
	if a.Pool != nil {
		err = a.Pool.run(t, r)
	} else {
		err = t.create(r, a)
	}
	if err != nil {
		r.drop(t.index(), 1)
		return Thread{}, err
	}
	return t, nil
}

// create makes the kernel thread of t, whose record r is filled in.
func (t Thread) create(r *record, a *Attr) error {
	reap()
	c, err := newControl(a.stackSize(), a.guardSize())
	if err != nil {
		return err
	}
	c.index, c.self, c.policy = t.index(), t, a.FaultPolicy
	c.hook = *(*uintptr)(unsafe.Pointer(&a.OnFault))
	c.Entry = *(*uintptr)(unsafe.Pointer(&threadEntry)) // a fault of the last user has changed it
	r.ctl = uintptr(unsafe.Pointer(c))
	copy(r.name[:], a.Name)
	wait := a.needsSetup()
	if wait {
		c.setup.from(a)
		r.flags |= awaited
		r.start = setupPending
		r.word.Add(1) // keep the record of a detached thread past its end
	}
	args := asm.CloneArgs{
		Flags:     a.cloneFlags(),
		Stack:     c.G.StackHi - asm.FrameSize,
		ParentTID: uintptr(unsafe.Pointer(&r.exit)),
		ChildTID:  uintptr(unsafe.Pointer(&r.exit)),
		TLS:       c.Self,
		TCB:       c.Self,
	}
	if _, errno := asm.Clone(&args); errno != 0 {
		c.recycle()
		if wait {
			r.drop(t.index(), 1)
		}
		return failed(opClone, syscall.Errno(errno))
	}
	if !wait {
		return nil
	}
	err = r.awaitSetup()
	if err != nil {
		// The thread exits at once, and is not the reaper's even if detached.
		r.wait(futex.Deadline{})
		r.passOn(2) // the base reference and this call's
		if r.state.Or(collected)&collected != 0 {
			// Somebody had the handle from Threads and has joined. That has taken
			// the base reference; what the caller gives back is this call's.
			return err
		}
		c.recycle()
	}
	r.drop(t.index(), 1)
	return err
}

// threadEntry is what Clone's child calls.
var threadEntry = threadMain

// threadMain is the life of a thread: set up, run, tear down.
func threadMain(tcb *asm.TCB) {
	c := (*control)(unsafe.Pointer(tcb))
	c.openFaults()
	r := recordAt(c.index)
	if r.name[0] != 0 {
		unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&r.name)), 0)
	}
	if r.flags&awaited != 0 {
		o, errno := c.setup.apply()
		r.report(o, errno)
		if errno != 0 {
			r.ends()
			return
		}
	}
	r.call()
	c.finish()
}

// call runs the thread's function.
func (r *record) call() {
	fn := *(*func(unsafe.Pointer))(unsafe.Pointer(&r.fn))
	fn(pointer(r.arg))
}

// finish is the teardown, up to exit(2):
//
//  1. No new threads: a thread started by a destructor could depend on what
//     the steps below take away.
//  2. Thread-local storage, the key set last first. Before the hooks, which
//     may close what destructors still use.
//  3. Exit hooks, the last registered first; then 2 again if they have set keys.
//  4. The TID is noted for those who ask later, while it is still ours.
//  5. Done's channel is seen to.
//  6. ending. From here on Detach leaves the thread to the reaper; if that has
//     been done before, the thread queues itself, after it has collected
//     others, so that the last of many leaves little behind. Nothing may wait
//     or fail after this.
//  7. exit(2), by the caller's return or at once. The kernel clears the exit
//     word and wakes a joiner when it no longer needs the stack; only then is
//     the stack used again.
//
// A destructor or hook that calls Exit starts again with what is left.
func (c *control) finish() {
	c.unwind()
	run := c.self.index() != c.index
	if run {
		reap() // not after endRun: if that leaves a report, a goroutine makes a better one
		c.endRun()
	}
	r := recordAt(c.index)
	r.tid = atomic.LoadUint32(&r.exit)
	r.ends()
	if old := r.state.Or(ending); old&detached != 0 {
		if !run {
			reap()
		}
		bury(c.index)
	}
}

// Exit ends the calling thread as a return from its function does, and a
// process with status 0. Deferred calls do not run.
//
// Context: thread; on a goroutine it panics.
func Exit() {
	c := current()
	if c == nil {
		panic("lwp: Exit on a goroutine")
	}
	if c.proc.on {
		c.exitProcess(0)
	}
	if d := (*Domain)(pointer(c.domain)); d != nil {
		if lo, _ := d.Stack(asm.FramePointer()); lo != 0 {
			d.Exit()
		}
	}
	c.finish()
	asm.Exit(0)
}

type hook struct{ fn, arg uintptr }

// OnExit has fn(arg) called when the calling thread ends, after the
// destructors of thread-local storage and before hooks registered earlier. At
// most 16 can be registered at a time; on a pooled thread they run when its
// function returns.
//
// Context: thread; fn and arg are bound by the same rule as Start's there.
// Errors: ErrNilFunc, ErrNotThread, ErrHooks.
func OnExit[T any](fn func(*T), arg *T) error {
	if fn == nil {
		return ErrNilFunc
	}
	return onExit(hook{*(*uintptr)(unsafe.Pointer(&fn)), uintptr(unsafe.Pointer(arg))})
}

func onExit(h hook) error {
	c := current()
	switch {
	case c == nil:
		return ErrNotThread
	case c.nhooks == maxHooks:
		return ErrHooks
	}
	c.hooks[c.nhooks] = h
	c.nhooks++
	return nil
}

// unwind runs destructors and hooks. What the one leaves for the other is done
// in a further round; after as many as destructors have passes it is dropped.
func (c *control) unwind() {
	c.dying = true
	for range tls.DestructorPasses {
		c.Storage.RunDestructors()
		if c.nhooks == 0 {
			return
		}
		c.runHooks()
	}
	c.Storage.RunDestructors()
	c.nhooks = 0
}

func (c *control) runHooks() {
	for c.nhooks > 0 {
		c.nhooks--
		h := &c.hooks[c.nhooks]
		fn := *(*func(unsafe.Pointer))(unsafe.Pointer(&h.fn))
		fn(pointer(h.arg))
	}
}

// hasStack says whether the calling thread has n bytes of stack left; a
// goroutine has.
func hasStack(n uintptr) bool {
	var here byte
	c := current()
	return c == nil || uintptr(unsafe.Pointer(&here)) > c.G.StackGuard0+n
}

// current returns the calling thread's block, or nil on a goroutine.
//
//go:nosplit // onStack calls it
func current() *control { return (*control)(unsafe.Pointer(asm.Current())) }

// Self returns the calling thread's handle; on a goroutine, the zero Thread.
func Self() Thread {
	if c := current(); c != nil {
		return c.self
	}
	return Thread{}
}

// TID returns the thread's kernel ID, as gettid(2) gives it in the starter's
// PID namespace, also after the thread has ended; 0 for a handle that is no
// longer good. The kernel may have given the ID of an ended thread to another.
func (t Thread) TID() int {
	r, err := t.hold()
	if err != nil {
		return 0
	}
	tid := atomic.LoadUint32(&r.exit)
	switch tid {
	case 0:
		tid = atomic.LoadUint32(&r.tid)
	case unborn:
		tid = 0
	}
	r.drop(t.index(), 1)
	return int(tid)
}

// Name returns the name the thread was started with.
//
// Context: goroutine.
func (t Thread) Name() string {
	r, err := t.hold()
	if err != nil {
		return ""
	}
	defer r.drop(t.index(), 1)
	return unix.ByteSliceToString(r.name[:])
}

// Yield lets other tasks run: sched_yield(2) on a thread, runtime.Gosched on a
// goroutine.
func Yield() {
	if asm.Current() == nil {
		runtime.Gosched()
		return
	}
	unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
}

// Sleep suspends the calling thread or goroutine for at least d, signals
// notwithstanding.
//
// Source: clock_nanosleep(2), CLOCK_MONOTONIC.
func Sleep(d time.Duration) {
	if asm.Current() == nil {
		time.Sleep(d)
		return
	}
	if d <= 0 {
		return
	}
	end := futex.Monotonic()
	if end += int64(d); end < 0 {
		end = math.MaxInt64
	}
	ts := unix.NsecToTimespec(end)
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME,
			uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}

// An UnsupportedError says that the Go runtime of this program is not laid out
// as this package assumes.
type UnsupportedError struct {
	Release string // runtime.Version
	Why     string // the assumption that does not hold
}

func (e *UnsupportedError) Error() string {
	return "lwp: not supported with " + e.Release + ": " + e.Why
}

// layout is what the check of the runtime has found.
var layout asm.Layout

var checkRuntime = asm.CheckRuntime // tests have others

// ready checks, once, on a goroutine, that threads can be made in this program.
var ready = sync.OnceValue(func() error {
	if instrumented {
		return ErrRace
	}
	var why string
	if layout, why = checkRuntime(); why != "" {
		return &UnsupportedError{runtime.Version(), why}
	}
	if errno := asm.InstallFaultEntry(); errno != 0 {
		return failed(opSigaction, errno)
	}
	return nil
})
