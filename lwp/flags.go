package lwp

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Flags are the CLONE_* flags of clone(2) and clone3(2): what a child shares
// with its maker, what it gets new, and what the kernel reports of it. The
// termination signal, which clone(2) has in the same word, is ProcessAttr.ExitSignal.
type Flags uint64

// What is shared. Without the flag the child has a copy.
const (
	CloneVM      Flags = unix.CLONE_VM      // memory: what one writes or maps, the other has
	CloneFS      Flags = unix.CLONE_FS      // working directory, root, umask
	CloneFiles   Flags = unix.CLONE_FILES   // the table of descriptors
	CloneSighand Flags = unix.CLONE_SIGHAND // the table of signal handlers; the masks stay each one's own
	CloneIO      Flags = unix.CLONE_IO      // the I/O context: to the disk scheduler the two are one
	CloneSysvsem Flags = unix.CLONE_SYSVSEM // the list of System V semaphore adjustments, semop(2)
	CloneThread  Flags = unix.CLONE_THREAD  // the process: the child is a thread of it, not a process
	CloneParent  Flags = unix.CLONE_PARENT  // the parent: the child is the caller's sibling, and its parent's to wait for
)

// What is new. The namespaces are those of namespaces(7); all but NEWUSER need
// CAP_SYS_ADMIN, which the first process of a new user namespace has there:
// the kernel makes that one first.
const (
	CloneNewNS     Flags = unix.CLONE_NEWNS     // mounts
	CloneNewCgroup Flags = unix.CLONE_NEWCGROUP // the root of /proc/PID/cgroup
	CloneNewUTS    Flags = unix.CLONE_NEWUTS    // host and domain name
	CloneNewIPC    Flags = unix.CLONE_NEWIPC    // System V IPC and POSIX message queues
	CloneNewUser   Flags = unix.CLONE_NEWUSER   // user and group IDs, capabilities
	CloneNewPID    Flags = unix.CLONE_NEWPID    // process IDs: the child is process 1
	CloneNewNet    Flags = unix.CLONE_NEWNET    // interfaces, addresses, ports
	CloneNewTime   Flags = unix.CLONE_NEWTIME   // offsets of the monotonic and boot clocks; with CloneVM only for the child's children

	CloneClearSighand Flags = unix.CLONE_CLEAR_SIGHAND // handlers: every signal that has one gets its default action
	CloneIntoCgroup   Flags = unix.CLONE_INTO_CGROUP   // cgroup: that of ProcessAttr.Cgroup
	CloneSetTLS       Flags = unix.CLONE_SETTLS        // thread pointer; this package sets it in every child
)

// How the two go on, and what the kernel reports.
const (
	CloneVfork         Flags = unix.CLONE_VFORK          // the calling thread sleeps until the child has ended or executed a program
	ClonePtrace        Flags = unix.CLONE_PTRACE         // who traces the caller traces the child
	CloneUntraced      Flags = unix.CLONE_UNTRACED       // a tracer cannot force CLONE_PTRACE on the child
	ClonePIDFD         Flags = unix.CLONE_PIDFD          // a descriptor of the child, Process.PIDFD
	CloneParentSetTID  Flags = unix.CLONE_PARENT_SETTID  // the child's ID is stored at ProcessAttr.ParentTID, in the caller's memory
	CloneChildSetTID   Flags = unix.CLONE_CHILD_SETTID   // and at ProcessAttr.ChildTID, in the child's memory
	CloneChildClearTID Flags = unix.CLONE_CHILD_CLEARTID // ProcessAttr.ChildTID is set to 0, and a futex waiter woken, when the child lets go of shared memory
	CloneDetached      Flags = unix.CLONE_DETACHED       // does nothing since 2.6.2, but that clone3 and ClonePIDFD refuse it
)

const cloneAll = CloneVM | CloneFS | CloneFiles | CloneSighand | CloneIO | CloneSysvsem | CloneThread | CloneParent |
	CloneNewNS | CloneNewCgroup | CloneNewUTS | CloneNewIPC | CloneNewUser | CloneNewPID | CloneNewNet | CloneNewTime |
	CloneClearSighand | CloneIntoCgroup | CloneSetTLS | CloneVfork | ClonePtrace | CloneUntraced | ClonePIDFD |
	CloneParentSetTID | CloneChildSetTID | CloneChildClearTID | CloneDetached

// clone3Only are flags that clone(2) has no room for, or no argument.
const clone3Only = CloneClearSighand | CloneIntoCgroup | CloneNewTime

// A FlagInfo says of one flag what clone(2) does.
type FlagInfo struct {
	Flag  Flags
	Name  string // as in clone(2)
	Since string // the Linux release
	Needs string // other flags, a capability, or nothing
	Does  string
}

var flagInfos = []FlagInfo{
	{CloneVM, "CLONE_VM", "2.0", "a stack of its own", "shares memory"},
	{CloneFS, "CLONE_FS", "2.0", "", "shares working directory, root and umask"},
	{CloneFiles, "CLONE_FILES", "2.0", "", "shares the descriptor table"},
	{CloneSighand, "CLONE_SIGHAND", "2.0", "CLONE_VM", "shares the signal handlers"},
	{ClonePIDFD, "CLONE_PIDFD", "5.2", "", "gives a descriptor of the child"},
	{ClonePtrace, "CLONE_PTRACE", "2.2", "", "has the caller's tracer trace the child"},
	{CloneVfork, "CLONE_VFORK", "2.2", "", "suspends the caller until the child has ended or executed a program"},
	{CloneParent, "CLONE_PARENT", "2.3.12", "", "gives the child the caller's parent"},
	{CloneThread, "CLONE_THREAD", "2.4.0", "CLONE_SIGHAND", "makes a thread of the caller's process"},
	{CloneNewNS, "CLONE_NEWNS", "2.4.19", "CAP_SYS_ADMIN", "a new mount namespace"},
	{CloneSysvsem, "CLONE_SYSVSEM", "2.5.10", "", "shares the semaphore undo list"},
	{CloneSetTLS, "CLONE_SETTLS", "2.5.32", "", "sets the thread pointer"},
	{CloneParentSetTID, "CLONE_PARENT_SETTID", "2.5.49", "an address", "stores the child's ID for the parent"},
	{CloneChildClearTID, "CLONE_CHILD_CLEARTID", "2.5.49", "an address", "clears a word when the child lets go of the memory"},
	{CloneDetached, "CLONE_DETACHED", "2.5.32 to 2.6.1", "", "nothing any more"},
	{CloneUntraced, "CLONE_UNTRACED", "2.5.46", "", "keeps a tracer from following"},
	{CloneChildSetTID, "CLONE_CHILD_SETTID", "2.5.49", "an address", "stores the child's ID for the child"},
	{CloneNewCgroup, "CLONE_NEWCGROUP", "4.6", "CAP_SYS_ADMIN", "a new cgroup namespace"},
	{CloneNewUTS, "CLONE_NEWUTS", "2.6.19", "CAP_SYS_ADMIN", "a new namespace of the host name"},
	{CloneNewIPC, "CLONE_NEWIPC", "2.6.19", "CAP_SYS_ADMIN", "a new namespace of System V IPC"},
	{CloneNewUser, "CLONE_NEWUSER", "3.8", "", "a new user namespace"},
	{CloneNewPID, "CLONE_NEWPID", "2.6.24", "CAP_SYS_ADMIN", "a new PID namespace"},
	{CloneNewNet, "CLONE_NEWNET", "2.6.24", "CAP_SYS_ADMIN", "a new network namespace"},
	{CloneIO, "CLONE_IO", "2.6.25", "", "shares the I/O context"},
	{CloneClearSighand, "CLONE_CLEAR_SIGHAND", "5.5", "clone3", "resets the signal handlers"},
	{CloneIntoCgroup, "CLONE_INTO_CGROUP", "5.7", "clone3, write access to the cgroup", "makes the child in another cgroup"},
	{CloneNewTime, "CLONE_NEWTIME", "5.6", "CAP_SYS_ADMIN", "a new time namespace"},
}

var goneFlags = []FlagInfo{
	{ClonePIDFD, "CLONE_PID", "2.0 to 2.5.15", "", "gave the child its maker's process ID; the bit is CLONE_PIDFD since 5.2"},
	{CloneNewCgroup, "CLONE_STOPPED", "2.6.0 to 2.6.38", "", "started the child stopped, as by SIGSTOP; the bit is CLONE_NEWCGROUP since 4.6"},
}

// AllFlags describes every flag, in the order of their bits.
//
// Context: goroutine.
func AllFlags() []FlagInfo { return append([]FlagInfo(nil), flagInfos...) }

// GoneFlags describes flags that clone(2) no longer knows: their names, what
// they did, and the flag that the kernel takes their bits for now.
//
// Context: goroutine.
func GoneFlags() []FlagInfo { return append([]FlagInfo(nil), goneFlags...) }

// String returns the names of the flags, as clone(2) has them, with | between.
func (f Flags) String() string {
	if f == 0 {
		return "0"
	}
	var names []string
	for _, i := range flagInfos {
		if f&i.Flag != 0 {
			names = append(names, i.Name)
			f &^= i.Flag
		}
	}
	if f != 0 {
		names = append(names, "0x"+strconv.FormatUint(uint64(f), 16))
	}
	return strings.Join(names, "|")
}

// A RuleError is a combination of flags and attributes that the kernel would
// refuse with EINVAL, found before the call. errors.Is matches syscall.EINVAL.
type RuleError struct {
	Flags Flags  // those in question
	Rule  string // what must hold, and why
}

func (e *RuleError) Error() string { return "lwp: clone flags: " + e.Rule }

// Unwrap returns EINVAL, the kernel's word for it.
func (e *RuleError) Unwrap() error { return syscall.EINVAL }

// rules are the kernel's own, of copy_process and clone3. The first flag is
// the one that asks: it needs, or excludes, all of the others.
var rules = [...]struct {
	has, needs, excludes Flags
	err                  RuleError
}{
	{CloneSighand, CloneVM, 0, RuleError{CloneSighand | CloneVM,
		"CLONE_SIGHAND needs CLONE_VM: the addresses of handlers mean nothing in other memory"}},
	{CloneThread, CloneSighand, 0, RuleError{CloneThread | CloneSighand,
		"CLONE_THREAD needs CLONE_SIGHAND: the threads of a process have its signal handlers"}},
	{CloneNewNS, 0, CloneFS, RuleError{CloneNewNS | CloneFS,
		"CLONE_NEWNS excludes CLONE_FS: root and working directory are of one mount namespace"}},
	{CloneNewUser, 0, CloneFS, RuleError{CloneNewUser | CloneFS,
		"CLONE_NEWUSER excludes CLONE_FS: who is privileged in a user namespace must not move another's root"}},
	{CloneNewUser, 0, CloneThread, RuleError{CloneNewUser | CloneThread,
		"CLONE_NEWUSER excludes CLONE_THREAD: the threads of a process have one user namespace"}},
	{CloneNewPID, 0, CloneThread, RuleError{CloneNewPID | CloneThread,
		"CLONE_NEWPID excludes CLONE_THREAD: the threads of a process have one PID namespace"}},
	{CloneNewIPC, 0, CloneSysvsem, RuleError{CloneNewIPC | CloneSysvsem,
		"CLONE_NEWIPC excludes CLONE_SYSVSEM: the adjustments are of semaphores in the old namespace"}},
	{CloneClearSighand, 0, CloneSighand, RuleError{CloneClearSighand | CloneSighand,
		"CLONE_CLEAR_SIGHAND excludes CLONE_SIGHAND: it would clear the caller's handlers too"}},
	{ClonePIDFD, 0, CloneDetached, RuleError{ClonePIDFD | CloneDetached,
		"CLONE_PIDFD excludes CLONE_DETACHED: the kernel keeps the old bit free for later use"}},
	{CloneDetached, 0, clone3Only, RuleError{CloneDetached | clone3Only,
		"CLONE_DETACHED excludes CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP and CLONE_NEWTIME: those need clone3, which refuses it"}},
}

var (
	errNullStack = &RuleError{CloneVM,
		"a NULL stack excludes CLONE_VM: two tasks would use the same stack at a time"}
	errUnknownFlag  = &RuleError{0, "a bit that is no flag of this package"}
	errExitSignal   = &RuleError{0, "the termination signal is a signal number from 1 to 64, NoSignal, or 0 for SIGCHLD"}
	errSiblingSig   = &RuleError{CloneThread | CloneParent, "CLONE_THREAD and CLONE_PARENT exclude a termination signal: a thread has none, and a sibling the caller's own"}
	errAddressNil   = &RuleError{CloneParentSetTID | CloneChildSetTID | CloneChildClearTID, "CLONE_PARENT_SETTID needs ParentTID, CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID need ChildTID"}
	errAddressExtra = &RuleError{CloneParentSetTID | CloneChildSetTID | CloneChildClearTID, "ParentTID needs CLONE_PARENT_SETTID, ChildTID needs CLONE_CHILD_SETTID or CLONE_CHILD_CLEARTID"}
	errSetTID       = &RuleError{0, "SetTID has at most 32 IDs, each above 0, and excludes CLONE_DETACHED"}
	errCgroup       = &RuleError{CloneIntoCgroup, "CLONE_INTO_CGROUP and the descriptor Cgroup need each other"}
	errPdeathsig    = &RuleError{CloneThread | CloneParent, "Pdeathsig is a signal number from 1 to 64, and excludes CLONE_THREAD and CLONE_PARENT: the caller is no parent of theirs"}
	errAsRoot       = &RuleError{CloneNewUser, "AsRoot needs CLONE_NEWUSER, and excludes CLONE_FILES: the child reports by a descriptor of its own"}
	errStackMemory  = &RuleError{0, "Stack has at least MinStackSize bytes and ends at a multiple of 16"}
	errForkStack    = &RuleError{0, "Fork's child goes on with a copy of the caller's stack: Stack and StackSize are not for it"}
	errForkThread   = &RuleError{CloneVM | CloneThread | CloneSighand | CloneVfork, "VFork sets CLONE_VM and CLONE_VFORK itself, and excludes CLONE_THREAD"}
	errSpawnFlags   = &RuleError{CloneThread | CloneSighand | CloneFiles | CloneFS, "SpawnExec excludes CLONE_THREAD, CLONE_SIGHAND, CLONE_FILES and CLONE_FS: until the exec its child would change what is this process's"}
)

// Check returns the first rule between flags that f breaks, or nil.
//
// Context: goroutine or thread.
// Errors: *RuleError.
func (f Flags) Check() error {
	if f&^cloneAll != 0 {
		return errUnknownFlag
	}
	for i := range rules {
		r := &rules[i]
		if f&r.has != 0 && (f&r.needs != r.needs || f&r.excludes != 0) {
			return &r.err
		}
	}
	return nil
}
