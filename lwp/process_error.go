package lwp

import (
	"errors"
	"syscall"
)

// Errors of processes. Those of the kernel are *Error and *CloneError.
var (
	ErrNoProcess  = errors.New("lwp: the handle is of no process")
	ErrWaited     = errors.New("lwp: the process has been waited for")
	ErrNotProcess = errors.New("lwp: the caller is not a process of this package")
	ErrUnreached  = errors.New("lwp: a thread does not come to make the system call: none has made it")
	ErrRuns       = errors.New("lwp: the process is still running")
)

// ErrNotChild says that a wait has nothing to wait for. errors.Is also matches
// ECHILD, the kernel's word for it.
var ErrNotChild error = &notChild

var notChild = notChildError{}

type notChildError struct{ _ byte }

func (*notChildError) Error() string {
	return "lwp: not a child that this wait is for: another's, one of the other kind of termination signal, or collected by somebody else"
}

func (*notChildError) Unwrap() error { return syscall.ECHILD }

// A CloneError is a process that the kernel did not make. errors.Is matches its Errno.
type CloneError struct {
	Call  string // "clone", "clone3", or what the child could not do before its function
	Errno syscall.Errno
	Flags Flags // 0 on a thread
}

func (e *CloneError) Error() string {
	s := "lwp: " + e.Call + ": " + e.Errno.Error()
	if e.Flags != 0 {
		s += " with " + e.Flags.String()
	}
	if a := e.advice(); a != "" {
		s += " (" + a + ")"
	}
	return s
}

// Unwrap returns the Errno.
func (e *CloneError) Unwrap() error { return e.Errno }

// advice says what to do about the error, from clone(2), ERRORS.
func (e *CloneError) advice() string {
	switch e.Errno {
	case syscall.EAGAIN:
		return "too many tasks: wait for children that have ended, or raise RLIMIT_NPROC, the pids limit of the cgroup, kernel.threads-max or kernel.pid_max"
	case syscall.ENOMEM:
		if e.Flags&CloneNewPID != 0 || e.Flags == 0 {
			return "out of memory, or process 1 of the PID namespace has ended and it takes no more: start from outside"
		}
		return "the kernel has no memory for the task or, without CLONE_VM, its page tables: free some, or look at vm.overcommit_memory"
	case syscall.EINVAL:
		return "this kernel does not know a flag, lacks the kind of namespace, or SetTID has more IDs than there are PID namespaces, or an ID above kernel.pid_max; process 1 cannot use CLONE_PARENT"
	case syscall.EPERM:
		if e.Flags&(CloneNewNS|CloneNewCgroup|CloneNewUTS|CloneNewIPC|CloneNewPID|CloneNewNet|CloneNewTime) != 0 {
			return "namespaces need CAP_SYS_ADMIN, or CLONE_NEWUSER with them"
		}
		return "namespaces need CAP_SYS_ADMIN, or CLONE_NEWUSER with them; CLONE_NEWUSER is switched off (user.max_user_namespaces, kernel.unprivileged_userns_clone), or needs a root that is not a chroot and IDs that are mapped; SetTID needs CAP_CHECKPOINT_RESTORE where the IDs are"
	case syscall.EEXIST:
		return "an ID of SetTID is taken: choose another, or wait until its task is collected"
	case syscall.ENOSPC:
		return "too many namespaces: they nest at most 32 deep, and /proc/sys/user/max_*_namespaces bounds their number"
	case syscall.EUSERS:
		return "too many nested user namespaces"
	case syscall.EBUSY:
		return "the cgroup has controllers enabled for its children: put the process into one of those"
	case syscall.EOPNOTSUPP:
		return "the cgroup is in the state domain invalid: make it threaded, or its parent not"
	case syscall.EACCES:
		return "the cgroup of the child and the common ancestor must be writable"
	case syscall.ENODEV, syscall.EBADF:
		return "Cgroup is not the descriptor of a directory of a cgroup v2 hierarchy"
	case syscall.EMFILE, syscall.ENFILE:
		return "no descriptor is left for CLONE_PIDFD: raise RLIMIT_NOFILE"
	case syscall.ENOSYS:
		return "clone3, which SetTID and some flags need, is not in this kernel, or a seccomp filter hides it"
	}
	return ""
}

// cloneErrors holds every CloneError that a thread can get.
var cloneErrors [2][maxErrno]CloneError

func init() {
	for i := range cloneErrors {
		for e := range cloneErrors[i] {
			cloneErrors[i][e] = CloneError{Call: [...]string{"clone", "clone3"}[i], Errno: syscall.Errno(e)}
		}
	}
}

// cloneFailed returns the error of a clone, on a thread without allocating it.
func cloneFailed(clone3 bool, errno syscall.Errno, f Flags) error {
	i := 0
	if clone3 {
		i = 1
	}
	if errno >= maxErrno {
		errno = 0
	}
	e := &cloneErrors[i][errno]
	if current() != nil {
		return e
	}
	return &CloneError{e.Call, e.Errno, f}
}
