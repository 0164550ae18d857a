package futex

import (
	"errors"
	"syscall"
)

// An Error is a futex call that the kernel refused. Errors are compared with
// errors.Is and a syscall.Errno.
type Error struct {
	Op    string // "wait", "wake", "requeue", "lock", "unlock" or "robust list"
	Errno syscall.Errno
	text  string
}

// Error returns, for instance, "futex wait: bad address".
func (e *Error) Error() string {
	if e.text != "" {
		return e.text
	}
	return "futex " + e.Op + ": " + e.Errno.Error()
}

// Unwrap returns the Errno.
func (e *Error) Unwrap() error { return e.Errno }

// Errors of the locks that have an owner, PIMutex and RobustMutex.
var (
	ErrTimeout        = errors.New("futex: the time was up before the lock came free")
	ErrBusy           = errors.New("futex: the lock is held")
	ErrDeadlock       = errors.New("futex: the caller waits for itself")
	ErrOwnerDied      = errors.New("futex: the lock's owner has ended without unlocking it")
	ErrNotRecoverable = errors.New("futex: what the lock guards was given up after its owner's end")
	ErrForeignList    = errors.New("futex: the caller's robust list belongs to somebody else")
)

// Calls, as indices of errorTable.
const (
	fnWait = iota
	fnWake
	fnRequeue
	fnLock
	fnUnlock
	fnRobust
	numFn
)

// maxErrno is the largest errno of the generic table, EHWPOISON.
const maxErrno = 133

// errorTable holds every error that fail returns, texts included, because a
// thread of ours can neither allocate one nor build its text. Index 0 stands
// for an errno above maxErrno.
var errorTable [numFn][maxErrno + 1]Error

func init() {
	for fn, op := range [numFn]string{
		fnWait: "wait", fnWake: "wake", fnRequeue: "requeue", fnLock: "lock", fnUnlock: "unlock", fnRobust: "robust list",
	} {
		for errno := range errorTable[fn] {
			e := &errorTable[fn][errno]
			e.Op, e.Errno = op, syscall.Errno(errno)
			if errno == 0 {
				e.Errno = syscall.ENOSYS
			}
			e.text = e.Error()
		}
	}
}

// fail returns the error of a call without allocating it.
func fail(fn int, errno syscall.Errno) error {
	if errno > maxErrno {
		errno = 0
	}
	return &errorTable[fn][errno]
}
