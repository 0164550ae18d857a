package lwptest

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/tls"
)

// A Code stands for an error where freestanding code cannot store one: a store
// of an interface asks for a write barrier. 0 is no error.
type Code uint32

var sentinels = [...]error{
	nil, lwp.ErrNilFunc, lwp.ErrStackSize, lwp.ErrGuardSize, lwp.ErrAttr, lwp.ErrNoThread, lwp.ErrJoined,
	lwp.ErrDetached, lwp.ErrSelf, lwp.ErrRunning, lwp.ErrTimeout, lwp.ErrExiting, lwp.ErrNotThread,
	lwp.ErrHosted, lwp.ErrHooks, lwp.ErrLimit, lwp.ErrRace, lwp.ErrPoolClosed, lwp.ErrPoolFull, lwp.ErrPoolThread,
	lwp.ErrNoProcess, lwp.ErrWaited, lwp.ErrNotChild, lwp.ErrNotProcess, lwp.ErrRuns, lwp.ErrUnreached,
	tls.ErrNotThread, tls.ErrThread, tls.ErrKey, tls.ErrKeys, tls.ErrSize,
}

// Unknown is the Code of an error that has none.
const Unknown Code = 1 << 31

// CodeOf returns the Code of an error of packages lwp and tls. It is freestanding.
func CodeOf(err error) Code {
	if e, ok := err.(*lwp.Error); ok {
		return Code(e.Errno) << 8
	}
	for i := range sentinels {
		if err == sentinels[i] {
			return Code(i)
		}
	}
	return Unknown
}

// String returns the text of the error that c stands for.
func (c Code) String() string {
	switch {
	case c == Unknown:
		return "an unknown error"
	case c == 0:
		return "nil"
	case c > 0xff:
		return fmt.Sprintf("*lwp.Error: %v", syscall.Errno(c>>8))
	}
	return sentinels[c].Error()
}

// A Flag is an event between goroutines and threads, down at first.
type Flag struct{ word uint32 }

// Raise lets everyone pass who waits or will wait. It is freestanding.
func (f *Flag) Raise() {
	atomic.StoreUint32(&f.word, 1)
	futex.Wake(&f.word, futex.All)
}

// Wait waits until f is raised. It is freestanding.
func (f *Flag) Wait() {
	for atomic.LoadUint32(&f.word) == 0 {
		futex.Wait(&f.word, 0)
	}
}

// Up reports whether f is raised. It is freestanding.
func (f *Flag) Up() bool { return atomic.LoadUint32(&f.word) != 0 }

// Lower makes f as it was at first.
func (f *Flag) Lower() { atomic.StoreUint32(&f.word, 0) }

// Mask returns the calling task's mask of blocked signals. It is freestanding.
func Mask() uint64 {
	var mask uint64
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, 0, 0, uintptr(unsafe.Pointer(&mask)), unsafe.Sizeof(mask), 0, 0)
	return mask
}

// OnThread runs a freestanding fn(arg) on a thread and waits for its end.
func OnThread[T any](t testing.TB, fn func(*T), arg *T) {
	t.Helper()
	th, err := lwp.Start(fn, arg)
	if err != nil {
		t.Fatal("start: ", err)
	}
	Within(t, "a thread", func() {
		if err := th.Join(); err != nil {
			t.Error("join: ", err)
		}
	})
}

// Collect keeps the garbage collector running until the test ends, so that
// freestanding code meets it marking.
func Collect(t testing.TB) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
}
