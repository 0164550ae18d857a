package lwp

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

// Policy is a scheduling policy, sched(7).
type Policy uint8

// The zero Policy leaves the thread with its starter's.
const (
	PolicyInherit Policy = iota
	PolicyOther          // SCHED_OTHER
	PolicyFIFO           // SCHED_FIFO
	PolicyRR             // SCHED_RR
	PolicyBatch          // SCHED_BATCH
	PolicyIdle           // SCHED_IDLE
)

var kernelPolicy = [...]uint32{0, unix.SCHED_NORMAL, unix.SCHED_FIFO, unix.SCHED_RR, unix.SCHED_BATCH, unix.SCHED_IDLE}

// NoGuard as Attr.GuardSize leaves the stack without a guard.
const NoGuard = -1

// Attr says how a thread is to be. The zero Attr is the default: what the
// starter has, and everything shared.
//
// What differs from the default is set up by the new thread itself before it
// runs the function, and StartAttr waits for that: it returns an error, and no
// thread, where the kernel refuses.
type Attr struct {
	// Name is the thread's name in /proc, at most 15 bytes; see prctl(2), PR_SET_NAME.
	Name string

	// StackSize is in bytes, rounded up to the page size; 0 means DefaultStackSize.
	StackSize int

	// GuardSize is in bytes, rounded up to the page size; 0 means one page.
	GuardSize int

	// Detached threads are not joined: their memory is taken back when they end.
	Detached bool

	// CPUs is the set of CPUs that the thread may run on; empty means the starter's.
	CPUs unix.CPUSet

	// Policy and Priority are the scheduling policy and the real-time priority
	// (1 to 99 with PolicyFIFO and PolicyRR, else 0).
	Policy   Policy
	Priority int

	// Nice is added to the starter's nice value, as by nice(2).
	Nice int

	// PrivateFS gives the thread its own copy of working directory, root and
	// umask (no CLONE_FS).
	PrivateFS bool

	// PrivateFiles gives the thread its own copy of the descriptor table (no
	// CLONE_FILES). The runtime's poller and the finalizers of *os.File do not
	// know of it: what is closed elsewhere stays open here.
	PrivateFiles bool

	// Namespaces are CLONE_NEW* flags of namespaces that the thread is to be
	// made with: NEWNS (with PrivateFS), NEWUTS, NEWIPC, NEWNET, NEWCGROUP. The
	// kernel allows no thread of its own NEWUSER and NEWPID.
	Namespaces uintptr

	// Enter are descriptors of namespaces (/proc/PID/ns/...) or pidfds that the
	// thread enters, in this order, by setns(2). EnterTypes are the types that
	// each must be of; 0, or missing, allows any (a pidfd needs one).
	Enter      []int
	EnterTypes []int

	// Strict has the function checked before it first runs, and refuses it
	// with a report where it is not freestanding. The program must import
	// lwprt/lwp/freestanding/strict. Only on goroutines.
	Strict bool

	// FaultPolicy says what a fault of the thread does.
	FaultPolicy FaultPolicy

	// OnFault, if not nil, runs on the thread after a fault, before
	// destructors and exit hooks, with what is known of it. It is freestanding
	// and a top-level function.
	OnFault func(*Fault)

	// Pool, if not nil, lends one of its parked threads instead of creating
	// one. Of the other attributes only Detached and Strict may be set; the pool's own
	// say how its threads are.
	Pool *Pool
}

const threadNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// check refuses what can be refused without asking the kernel.
func (a *Attr) check() error {
	switch {
	case a.StackSize != 0 && (a.StackSize < MinStackSize || a.StackSize > MaxStackSize):
		return ErrStackSize
	case a.GuardSize < NoGuard || a.GuardSize > MaxStackSize:
		return ErrGuardSize
	case len(a.Name) > 15, hasNUL(a.Name),
		int(a.Policy) >= len(kernelPolicy),
		a.Priority < 0 || a.Priority > 99 || a.Priority != 0 && a.Policy == PolicyInherit,
		a.Nice < -40 || a.Nice > 40,
		a.Namespaces&^threadNamespaces != 0,
		a.Namespaces&unix.CLONE_NEWNS != 0 && !a.PrivateFS,
		len(a.EnterTypes) > len(a.Enter), len(a.Enter) > maxEnter:
		return ErrAttr
	case a.Pool != nil && !a.poolable():
		return ErrAttr
	}
	return nil
}

func hasNUL(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return true
		}
	}
	return false
}

// poolable says whether a is the zero Attr, but for Pool and Detached.
func (a *Attr) poolable() bool {
	return a.Name == "" && a.StackSize == 0 && a.GuardSize == 0 && !a.PrivateFS && !a.PrivateFiles &&
		a.Namespaces == 0 && a.FaultPolicy == ContainFault && a.OnFault == nil && !a.needsSetup()
}

func (a *Attr) stackSize() uintptr {
	if a.StackSize == 0 {
		return DefaultStackSize
	}
	return uintptr(a.StackSize)
}

func (a *Attr) guardSize() uintptr {
	switch a.GuardSize {
	case 0:
		return pageSize
	case NoGuard:
		return 0
	}
	return uintptr(a.GuardSize)
}

// cloneFlags returns the flags that make a thread of this process (clone(2)),
// less what a does not want to share.
func (a *Attr) cloneFlags() uintptr {
	flags := uintptr(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD |
		unix.CLONE_SYSVSEM | unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID)
	if a.PrivateFS {
		flags &^= unix.CLONE_FS
	}
	if a.PrivateFiles {
		flags &^= unix.CLONE_FILES
	}
	if a.Namespaces&unix.CLONE_NEWIPC != 0 {
		flags &^= unix.CLONE_SYSVSEM // the undo list belongs to the old namespace
	}
	return flags | a.Namespaces
}

// setup is what a new thread does to itself before it runs its function. It
// has its own copy: a thread that fails to appear must not leave the starter's
// memory in use.
type setup struct {
	name     [16]byte
	cpus     unix.CPUSet
	policy   Policy
	priority uint32
	nice     int
	nenter   int
	enter    [maxEnter]struct{ fd, nstype int32 }
}

const maxEnter = 8 // there are eight kinds of namespaces

func (a *Attr) needsSetup() bool {
	return a.Policy != PolicyInherit || a.Nice != 0 || len(a.Enter) > 0 || a.CPUs != unix.CPUSet{}
}

func (s *setup) from(a *Attr) {
	*s = setup{cpus: a.CPUs, policy: a.Policy, priority: uint32(a.Priority), nice: a.Nice, nenter: len(a.Enter)}
	for i, fd := range a.Enter {
		s.enter[i].fd = int32(fd)
		if i < len(a.EnterTypes) {
			s.enter[i].nstype = int32(a.EnterTypes[i])
		}
	}
}

// apply runs on the new thread. Namespaces come first, as they decide what is
// allowed; the CPU set comes last, so that all else is done where the thread was born.
func (s *setup) apply() (op, syscall.Errno) {
	for _, ns := range s.enter[:s.nenter] {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETNS, uintptr(ns.fd), uintptr(ns.nstype), 0); errno != 0 {
			return opSetns, errno
		}
	}
	if s.policy != PolicyInherit {
		param := s.priority
		_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, uintptr(kernelPolicy[s.policy]), uintptr(unsafe.Pointer(&param)))
		if errno != 0 {
			return opSetscheduler, errno
		}
	}
	if s.nice != 0 {
		// The raw call returns 20 - nice, so that no result looks like an error.
		now, _, _ := unix.RawSyscall(unix.SYS_GETPRIORITY, unix.PRIO_PROCESS, 0, 0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(20-int(now)+s.nice)); errno != 0 {
			return opSetpriority, errno
		}
	}
	if s.cpus != (unix.CPUSet{}) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(s.cpus), uintptr(unsafe.Pointer(&s.cpus))); errno != 0 {
			return opSetaffinity, errno
		}
	}
	return 0, 0
}

// The handshake of a thread with a setup, in record.start: setupPending until
// the thread has put its result there and woken the starter. The result is
// setupDone with the op and the errno of what failed, both 0 where nothing did.
const (
	setupPending = 1
	setupDone    = 2
)

// report runs on the new thread.
func (r *record) report(o op, errno syscall.Errno) {
	atomic.StoreUint32(&r.start, setupDone|uint32(o)<<8|uint32(errno)<<16)
	futex.Wake(&r.start, 1)
}

// awaitSetup waits for report and returns the error it stands for.
func (r *record) awaitSetup() error {
	for {
		v := atomic.LoadUint32(&r.start)
		if v == setupPending {
			futex.Wait(&r.start, v)
			continue
		}
		if errno := syscall.Errno(v >> 16); errno != 0 {
			return failed(op(v>>8), errno)
		}
		return nil
	}
}
