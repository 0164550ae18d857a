package lwp

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// childState is what a process that is being made is told, and the arguments
// of the call that makes it; in control. It is off the Go heap, so that its
// addresses hold until the call.
type childState struct {
	on        bool // the task is a process of this package
	cleared   bool // the kernel has cleared the signal handlers
	implied   bool // and was asked to for our own sake
	left      bool // the child is at its exit, if it shares memory
	locked    bool // the child has copies of this package's locks, taken
	pdeathsig uint8
	parent    int32 // for the check of pdeathsig; 0: none
	flags     Flags
	signal    uintptr // at its end
	blocked   uint64
	fn        uintptr // func(unsafe.Pointer) int value
	arg       uintptr
	exec      uintptr // *execState
	code      int32   // of a thread
	record    uintptr // *procRecord of a thread
	clear     uintptr // *uint32: cleared by the kernel when the child lets go of the memory
	report    [2]int32
	maps      [2][24]byte // what goes into uid_map and gid_map
	pidfd     int32
	setTID    [maxSetTID]int32
	nsetTID   int
	args      asm.ProcessArgs
	c3        asm.Clone3Args
}

func (s *childState) fill(c *control, flags Flags, fn func(unsafe.Pointer) int, arg unsafe.Pointer, a *ProcessAttr) {
	*s = childState{flags: flags, fn: *(*uintptr)(unsafe.Pointer(&fn)), arg: uintptr(arg), report: [2]int32{-1, -1}, pidfd: -1}
	s.implied = flags&(CloneSighand|CloneClearSighand|CloneDetached) == 0
	s.signal = uintptr(unix.SIGCHLD)
	if a.ExitSignal != 0 {
		s.signal = uintptr(a.ExitSignal)
	}
	if a.ExitSignal == NoSignal || flags&(CloneThread|CloneParent) != 0 {
		s.signal = 0
	}
	s.blocked = a.Blocked & sigMask
	if flags&CloneSighand != 0 {
		s.blocked = sigMask
	}
	if a.Pdeathsig != 0 {
		s.pdeathsig = uint8(a.Pdeathsig)
		if flags&CloneNewPID == 0 { // there the parent has no ID
			s.parent = int32(getpid())
		}
	}
	s.nsetTID = copy(s.setTID[:], a.SetTID)
	if a.AsRoot {
		uid, _, _ := unix.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
		gid, _, _ := unix.RawSyscall(unix.SYS_GETEGID, 0, 0, 0)
		idMap(&s.maps[0], uid)
		idMap(&s.maps[1], gid)
	}
}

// idMap writes "0 id 1" and NULs.
func idMap(to *[24]byte, id uintptr) {
	*to = [24]byte{'0', ' '}
	var d [20]byte
	i := len(d)
	for ok := true; ok; ok = id > 0 {
		i--
		d[i] = '0' + byte(id%10)
		id /= 10
	}
	n := 2 + copy(to[2:], d[i:])
	to[n], to[n+1] = ' ', '1'
}

func (s *childState) clone3Args(a *ProcessAttr, lo, hi uintptr, twice bool) {
	s.c3 = asm.Clone3Args{
		Flags:      uint64(s.flags &^ lingers),
		ParentTID:  uint64(uintptr(unsafe.Pointer(a.ParentTID))),
		ChildTID:   uint64(uintptr(unsafe.Pointer(a.ChildTID))),
		PIDFD:      uint64(uintptr(unsafe.Pointer(&s.pidfd))),
		ExitSignal: uint64(s.signal),
		Cgroup:     uint64(a.Cgroup),
	}
	c := s.owner()
	if s.flags&CloneSetTLS != 0 {
		s.c3.TLS = uint64(c.Self)
	}
	if s.clear != 0 {
		s.c3.Flags |= uint64(CloneChildClearTID)
		s.c3.ChildTID = uint64(s.clear)
	}
	if s.implied {
		s.c3.Flags |= uint64(CloneClearSighand)
	}
	s.cleared = s.c3.Flags&uint64(CloneClearSighand) != 0
	if !twice {
		s.c3.Stack, s.c3.StackSize = uint64(lo), uint64(hi-asm.FrameSize-lo)
	}
	if s.nsetTID > 0 {
		s.c3.SetTID, s.c3.SetTIDSize = uint64(uintptr(unsafe.Pointer(&s.setTID))), uint64(s.nsetTID)
	}
	s.args.Clone3(&s.c3)
	s.runAs(c, twice)
}

func (s *childState) clone2Args(a *ProcessAttr, hi uintptr, twice bool) {
	c := s.owner()
	flags := uintptr(s.flags&^lingers) | s.signal
	stack := hi - asm.FrameSize
	if twice {
		stack = 0
	}
	parentTID, childTID := uintptr(unsafe.Pointer(a.ParentTID)), uintptr(unsafe.Pointer(a.ChildTID))
	if s.flags&ClonePIDFD != 0 {
		parentTID = uintptr(unsafe.Pointer(&s.pidfd)) // clone(2) has one argument for the two
	}
	if s.clear != 0 {
		flags |= uintptr(CloneChildClearTID)
		childTID = s.clear
	}
	s.args.Clone2(flags, stack, parentTID, childTID, c.Self)
	s.runAs(c, twice)
}

func (s *childState) runAs(c *control, twice bool) {
	// Where the kernel has cleared the handlers there is none that the child could
	// run, so nothing has to be blocked around the call: two system calls less, and a
	// SIGCHLD that finds its thread does not wake another. A copy of much memory takes
	// longer than signals may be apart, and each would have the call begin anew.
	s.args.Open = 0
	if s.cleared && s.flags&CloneVM != 0 && s.blocked == 0 {
		s.args.Open = ^uint64(0)
	}
	s.args.TCB, s.args.Twice = c.Self, 0
	if twice {
		s.args.Twice = 1
	}
}

// owner returns the control that s is in.
func (s *childState) owner() *control {
	return (*control)(unsafe.Add(unsafe.Pointer(s), -int(unsafe.Offsetof(control{}.proc))))
}

var (
	processEntry      = processMain
	processFaultEntry = onProcessFault
)

// processMain is the life of a process, or of what CLONE_THREAD makes.
func processMain(tcb *asm.TCB) {
	c := (*control)(unsafe.Pointer(tcb))
	if c.proc.exec != 0 {
		c.execMain()
	}
	c.becomeProcess()
	fn := *(*func(unsafe.Pointer) int)(unsafe.Pointer(&c.proc.fn))
	c.exitProcess(fn(pointer(c.proc.arg)))
}

// becomeProcess is what a child does first, with all signals blocked:
//
//  1. The copies of this package's locks, which its maker took, are let go.
//  2. No handler of the Go runtime may run here: signals get their default
//     action, but those of compiled code's faults ours. Before the mask opens.
//  3. The signal stack is the child's own, if its maker does not wait. Else it is
//     what the kernel has left it: the maker's, or a copy of that, and no call is
//     needed.
//  4. Its own end is tied to its maker's, before anything can take long.
//  5. It becomes root of its namespace. What fails is reported, and ends it.
//  6. The mask opens.
func (c *control) becomeProcess() {
	s := &c.proc
	s.on = true
	c.dying = false
	// Where this is a copy of its maker's block: another task, without its list
	// of robust locks, and no worker of a scheduler.
	c.TID, c.Robust = 0, asm.RobustList{}
	c.Worker, c.domain = 0, 0
	if s.flags&CloneVM == 0 {
		procs.released.Store(0) // the parent's
	}
	if s.locked {
		s.locked = false
		unlockAll()
	}
	if s.flags&CloneSighand == 0 {
		if !s.cleared {
			asm.ClearSignals()
		}
		asm.EnterFaults()
	}
	if s.flags&(CloneVM|CloneVfork) == CloneVM {
		c.openSigStack()
	}
	s.dieWithParent()
	if s.maps[0][0] != 0 {
		errno := s.becomeRoot()
		s.tell(uint32(opMaps), errno)
		if errno != 0 {
			exitGroup(exitSetup)
		}
	}
	setMask(&s.blocked)
}

// exitSetup is the status of a child that could not be made what was asked for.
const exitSetup = 126

// exitAbort is the status of a child that called Abort, as of a Go program that panics.
const exitAbort = 2

func setMask(mask *uint64) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(mask)), 0, unsafe.Sizeof(*mask), 0, 0)
}

func exitGroup(code int) {
	unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(code), 0, 0)
}

// dieWithParent asks for a signal at the parent's end, which can have come
// before the question.
func (s *childState) dieWithParent() {
	if s.pdeathsig == 0 {
		return
	}
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(s.pdeathsig), 0)
	if ppid, _, _ := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); s.parent != 0 && int32(ppid) != s.parent {
		unix.RawSyscall(unix.SYS_KILL, uintptr(getpid()), uintptr(s.pdeathsig), 0)
	}
}

var (
	pathUIDMap    = []byte("/proc/self/uid_map\x00")
	pathGIDMap    = []byte("/proc/self/gid_map\x00")
	pathSetgroups = []byte("/proc/self/setgroups\x00")
	deny          = []byte("deny")
)

// becomeRoot maps the child's IDs to 0. Without privilege outside, a group can
// only be mapped when setgroups(2) is given up, user_namespaces(7).
func (s *childState) becomeRoot() syscall.Errno {
	if errno := store(pathSetgroups, deny); errno != 0 {
		return errno
	}
	for i, path := range [][]byte{pathUIDMap, pathGIDMap} {
		m := s.maps[i][:]
		for m[len(m)-1] == 0 {
			m = m[:len(m)-1]
		}
		if errno := store(path, m); errno != 0 {
			return errno
		}
	}
	return 0
}

func store(path, b []byte) syscall.Errno {
	here := unix.AT_FDCWD
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(&path[0])), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	_, _, errno = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	closeFD(int(fd))
	return errno
}

// exitProcess is the teardown of a process: thread-local storage and hooks, as
// at the end of a thread; then all of the process.
func (c *control) exitProcess(code int) {
	c.unwind()
	c.leave(code)
}

func (c *control) leave(code int) {
	c.proc.left = true
	if c.proc.flags&CloneThread != 0 {
		c.proc.code = int32(code)
		asm.Exit(0)
	}
	exitGroup(code)
}

// onProcessFault is what onFault is to threads. Nobody goes on here, so it
// says what happened and dies of the signal.
func onProcessFault(tcb *asm.TCB, sig int, info *asm.SigInfo, ctx *asm.SigContext) {
	c := (*control)(unsafe.Pointer(tcb))
	if info.Code <= 0 && c.attend(sig) {
		return
	}
	if info.Code > 0 {
		if c.passBarrier(sig, ctx) {
			return
		}
		if c.count++; c.count == 1 {
			c.fault.note(c, sig, info, ctx, c.G.StackLo, c.G.StackHi)
			c.fault.print()
		}
	}
	c.dieOf(sig)
}

// dieOf ends the process with the signal, or where its action is shared with
// others, with the status that a shell gives for that.
func (c *control) dieOf(sig int) {
	if c.proc.flags&CloneSighand != 0 {
		c.leave(128 + sig)
	}
	asm.ResetSignal(syscall.Signal(sig))
	tid := gettid()
	unix.RawSyscall(unix.SYS_TGKILL, uintptr(getpid()), uintptr(tid), uintptr(sig))
	var none uint64
	setMask(&none)
	exitGroup(128 + sig)
}

func gettid() int {
	tid, _, _ := unix.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	return int(tid)
}
