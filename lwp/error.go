package lwp

import (
	"errors"
	"syscall"
)

// Errors of this package. Those of the kernel are *Error.
var (
	ErrNilFunc   = errors.New("lwp: the function is nil")
	ErrStackSize = errors.New("lwp: the stack size is not between MinStackSize and MaxStackSize")
	ErrGuardSize = errors.New("lwp: the guard size is not between 0 and MaxStackSize, nor NoGuard")
	ErrAttr      = errors.New("lwp: an attribute is out of range")
	ErrNoThread  = errors.New("lwp: the handle is of no thread")
	ErrJoined    = errors.New("lwp: the thread has been joined")
	ErrDetached  = errors.New("lwp: the thread is detached")
	ErrSelf      = errors.New("lwp: a thread cannot join itself")
	ErrRunning   = errors.New("lwp: the thread is still running")
	ErrTimeout   = errors.New("lwp: the time is up and the thread is still running")
	ErrExiting   = errors.New("lwp: the calling thread is exiting")
	ErrNotThread = errors.New("lwp: the caller is not a thread of this package")
	ErrHosted    = errors.New("lwp: the call needs the Go runtime: make it on a goroutine")
	ErrHooks     = errors.New("lwp: no room for another exit hook")
	ErrLimit     = errors.New("lwp: no room for another thread handle")
	ErrRace      = errors.New("lwp: not supported in a program built with -race, -msan or -asan: the detector's calls need the Go runtime on every thread")
)

// op is a system call that can fail, and an index into sysErrors.
type op uint8

const (
	opClone op = iota
	opMmap
	opMprotect
	opSetaffinity
	opSetscheduler
	opSetpriority
	opPrctl
	opSetns
	opUnshare
	opWrite
	opFutex
	opMunmap
	opPpoll
	opSigaction
	opWaitid
	opKill
	opTgkill
	opPidfdSignal
	opPidfdOpen
	opPipe
	opMaps
	opKcmp
	numOps
)

var opNames = [numOps]string{
	"clone", "mmap", "mprotect", "sched_setaffinity", "sched_setscheduler",
	"setpriority", "prctl", "setns", "unshare", "write", "futex", "munmap", "ppoll",
	"rt_sigaction", "waitid", "kill", "tgkill", "pidfd_send_signal", "pidfd_open", "pipe2",
	"write of uid_map", "kcmp",
}

// An Error is a system call that failed. errors.Is matches its Errno.
type Error struct {
	Op    string // the system call
	Errno syscall.Errno
}

func (e *Error) Error() string {
	s := "lwp: " + e.Op + ": " + e.Errno.Error()
	if e.Op == opNames[opClone] {
		switch e.Errno {
		case syscall.EAGAIN:
			s += " (too many threads: RLIMIT_NPROC, the pids limit of the cgroup, kernel.threads-max or kernel.pid_max)"
		case syscall.EPERM:
			s += " (a namespace needs CAP_SYS_ADMIN)"
		}
	}
	return s
}

// Unwrap returns the Errno.
func (e *Error) Unwrap() error { return e.Errno }

// sysErrors holds every Error there can be: a thread has no heap to make one on.
var sysErrors [numOps][maxErrno]Error

const maxErrno = 134 // EHWPOISON is 133

func init() {
	for o := range sysErrors {
		for e := range sysErrors[o] {
			sysErrors[o][e] = Error{opNames[o], syscall.Errno(e)}
		}
	}
}

// failed returns the Error of a system call.
func failed(o op, errno syscall.Errno) error {
	if errno >= maxErrno {
		errno = 0
	}
	return &sysErrors[o][errno]
}
