package sched

import (
	"errors"
	"syscall"
)

// Errors of this package. Those of the kernel are *Error. A goroutine gets
// ErrDeadlock as a *DeadlockError, which says who waits.
var (
	ErrNilFunc    = errors.New("sched: the function is nil")
	ErrStackSize  = errors.New("sched: the stack size is not between MinStackSize and MaxStackSize")
	ErrConfig     = errors.New("sched: a value of the configuration or the attributes is out of range")
	ErrNoFiber    = errors.New("sched: the handle is of no fiber")
	ErrJoined     = errors.New("sched: the fiber has been joined, or another is about to")
	ErrDetached   = errors.New("sched: the fiber is detached")
	ErrSelf       = errors.New("sched: a fiber cannot join itself")
	ErrNotFiber   = errors.New("sched: the caller is not a fiber")
	ErrHosted     = errors.New("sched: the call needs the Go runtime: make it on a goroutine")
	ErrClosed     = errors.New("sched: the scheduler is closed, or is being closed")
	ErrDeadlock   = errors.New("sched: deadlock: the fibers wait and nothing can wake them")
	ErrTimeout    = errors.New("sched: the time is up")
	ErrChanClosed = errors.New("sched: the channel is closed")
	ErrNilChan    = errors.New("sched: the channel is nil")
	ErrCases      = errors.New("sched: a Select has more than MaxCases cases")
	ErrNotReady   = errors.New("sched: the call would have to wait")
	ErrCanceled   = errors.New("sched: the wait was canceled")
)

// An Error is a system call that failed. errors.Is matches its Errno.
type Error struct {
	Op    string // the system call
	Errno syscall.Errno
}

func (e *Error) Error() string { return "sched: " + e.Op + ": " + e.Errno.Error() }

// Unwrap returns the Errno.
func (e *Error) Unwrap() error { return e.Errno }

// errNoMemory stands for every failure to get a slot: a fiber has no heap to
// make an error on.
var errNoMemory = &Error{"mprotect", syscall.ENOMEM}
