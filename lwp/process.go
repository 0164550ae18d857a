package lwp

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/tls"
)

// NoSignal as ProcessAttr.ExitSignal has the kernel send no signal at the
// child's end. Wait works all the same.
const NoSignal syscall.Signal = -1

// ProcessAttr says how a process is to be made. The zero ProcessAttr is fork's:
// a copy of everything, SIGCHLD at its end.
type ProcessAttr struct {
	// Flags are CLONE_* flags. CloneSetTLS is always added, CloneClearSighand
	// unless CloneSighand is set, and ClonePIDFD with CloneParent.
	Flags Flags

	// ExitSignal is what the parent gets when the child ends: 0 stands for
	// SIGCHLD, or for none with CloneThread and CloneParent.
	ExitSignal syscall.Signal

	// StackSize and GuardSize are of the child's stack, as in Attr.
	StackSize, GuardSize int

	// Stack, if not nil, is the memory of the child's stack in place of the
	// library's. It must not be on a goroutine's stack.
	Stack []byte

	// ParentTID and ChildTID are where CloneParentSetTID, CloneChildSetTID and
	// CloneChildClearTID store.
	ParentTID, ChildTID *int32

	// SetTID are the IDs that the child is to have, that in the innermost PID
	// namespace first. Since Linux 5.5.
	SetTID []int32

	// Cgroup is the descriptor of a cgroup v2 directory, for CloneIntoCgroup.
	Cgroup int

	// Pdeathsig is sent to the child when the thread that made it ends. A
	// goroutine should be locked to its thread.
	Pdeathsig syscall.Signal

	// AsRoot makes the child user and group 0 of its new user namespace, by
	// mapping the caller's effective IDs there. It cannot change its groups.
	AsRoot bool

	// Blocked are signals that the child starts with blocked, bit n-1 for
	// signal n. Others are not, unless CloneSighand is set: then all are
	// that are on a thread.
	Blocked uint64
}

// StartProcess makes a process that runs fn(arg) and ends with what it
// returns as its exit code, of which the kernel keeps eight bits.
//
// fn is freestanding, as on a thread, whatever else is shared. Without CloneVM
// it sees a copy of all memory as it was at the call. Signals that had a
// handler have their default action, ignored ones stay ignored, and none is
// blocked; with CloneSighand the handlers are the Go runtime's, so all signals
// but those of faults stay blocked, as on a thread. Thread-local storage is
// fresh, and destructors and exit hooks run when fn returns. Descriptors are
// those of the caller; what is close-on-exec stays open until an exec.
//
// A fault in fn (SIGSEGV, SIGBUS), and what on a thread would be a *Fault, is
// printed to standard error, and the child dies of the signal. With
// CloneSighand it exits with 128 plus the signal in place of that.
//
// The child may use this package's functions for threads, and make processes.
// It must not wait for a lock that somebody else held at the call, if memory
// is a copy: nobody is there to release it. The package's own locks are free in
// the child, except with CloneVfork and without CloneVM.
//
// With CloneThread the child is a thread of this process; fn's result is
// returned by Wait. Start is the better way to make one.
//
// Context: goroutine or thread. On a goroutine syscall.ForkLock is held during
// the call, unless CloneFiles is set: with CloneVfork that is until the child
// has ended or executed a program. What is passed stays reachable for a child
// with CloneVM until Wait; a thread passes what Start allows it.
// Errors: *RuleError; ErrNilFunc, ErrExiting, ErrRace, ErrStackSize,
// ErrGuardSize, ErrLimit; *UnsupportedError; *CloneError for what the kernel
// refuses, with what to do; *Error.
// Source: clone(2), clone3(2), fork(2), vfork(2), namespaces(7).
func StartProcess[T any](fn func(*T) int, arg *T, attr ProcessAttr) (Process, error) {
	if fn == nil {
		return Process{}, ErrNilFunc
	}
	return startProcess(*(*func(unsafe.Pointer) int)(unsafe.Pointer(&fn)), unsafe.Pointer(arg), &attr)
}

// VFork is StartProcess with CloneVM and CloneVfork: no memory is copied, and
// the calling thread, alone, is suspended until the child has ended or executed
// a program. What the child stores is stored in this process.
//
// Context: goroutine or thread; the goroutine holds no P meanwhile.
// Errors: as StartProcess.
// Source: vfork(2).
func VFork[T any](fn func(*T) int, arg *T, attr ProcessAttr) (Process, error) {
	if attr.Flags&CloneThread != 0 {
		return Process{}, errForkThread
	}
	attr.Flags |= CloneVM | CloneVfork
	return StartProcess(fn, arg, attr)
}

// Fork makes a process as fork(2) does: it is called once and returns twice. In
// the child, p.IsChild is true, and the caller's variables are copies.
//
//	p, err := lwp.Fork(lwp.ProcessAttr{})
//	switch {
//	case err != nil: ...
//	case p.IsChild():
//		... // freestanding
//		lwp.ExitProcess(0)
//	}
//	state, err := p.Wait()
//
// This is the raw call with a NULL stack: the child goes on with a copy of the
// caller's. It is freestanding code from there on, with the goroutine's stack,
// 32 KiB of it free, and a g of its own; all else is as in StartProcess. It
// ends by ExitProcess, and must not return into code that is not freestanding:
// deferred calls of its callers do not run. On a thread the child has a copy of
// that thread's: thread-local storage and exit hooks too.
//
// Context: goroutine or thread.
// Errors: as StartProcess; a *RuleError for CloneVM, Stack and StackSize.
// Source: fork(2), clone(2).
func Fork(attr ProcessAttr) (p Process, err error) {
	switch {
	case attr.Flags&CloneVM != 0:
		return Process{}, errNullStack
	case attr.Stack != nil || attr.StackSize != 0 || attr.GuardSize != 0:
		return Process{}, errForkStack
	}
	return startProcess(nil, nil, &attr)
}

// ExitProcess ends the calling process as the return of its function does:
// after destructors of thread-local storage and exit hooks.
//
// Context: a process of StartProcess, VFork or Fork, and its first task;
// elsewhere it panics, or ends the thread with a fault.
func ExitProcess(code int) {
	c := current()
	if c == nil || !c.proc.on {
		panic("lwp: ExitProcess: " + ErrNotProcess.Error())
	}
	c.exitProcess(code)
}

// check refuses what can be refused without asking the kernel.
func (a *ProcessAttr) check() error {
	f := a.Flags
	if err := f.Check(); err != nil {
		return err
	}
	switch {
	case a.StackSize != 0 && (a.StackSize < MinStackSize || a.StackSize > MaxStackSize):
		return ErrStackSize
	case a.GuardSize < NoGuard || a.GuardSize > MaxStackSize:
		return ErrGuardSize
	case a.Stack != nil && (len(a.Stack) < MinStackSize || uintptr(unsafe.Pointer(unsafe.SliceData(a.Stack)))%16 != 0 || len(a.Stack)%16 != 0):
		return errStackMemory
	case a.ExitSignal < NoSignal || a.ExitSignal > 64:
		return errExitSignal
	case f&(CloneThread|CloneParent) != 0 && a.ExitSignal > 0:
		return errSiblingSig
	case f&CloneParentSetTID != 0 && a.ParentTID == nil, f&(CloneChildSetTID|CloneChildClearTID) != 0 && a.ChildTID == nil:
		return errAddressNil
	case f&CloneParentSetTID == 0 && a.ParentTID != nil, f&(CloneChildSetTID|CloneChildClearTID) == 0 && a.ChildTID != nil:
		return errAddressExtra
	case f&CloneThread != 0 && f&(CloneChildSetTID|CloneChildClearTID) != 0:
		return errThreadTID
	case len(a.SetTID) > maxSetTID || len(a.SetTID) > 0 && f&CloneDetached != 0:
		return errSetTID
	case (f&CloneIntoCgroup != 0) != (a.Cgroup != 0) || a.Cgroup < 0:
		return errCgroup
	case a.Pdeathsig < 0 || a.Pdeathsig > 64 || a.Pdeathsig != 0 && f&(CloneThread|CloneParent) != 0:
		return errPdeathsig
	case a.AsRoot && (f&CloneNewUser == 0 || f&CloneFiles != 0):
		return errAsRoot
	}
	for _, id := range a.SetTID {
		if id <= 0 {
			return errSetTID
		}
	}
	return nil
}

var errThreadTID = &RuleError{CloneThread | CloneChildSetTID | CloneChildClearTID,
	"CLONE_THREAD excludes CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID here: Wait finds the end of the thread by that word"}

const maxSetTID = 32 // MAX_PID_NS_LEVEL

// startProcess makes the child. fn is nil for Fork.
func startProcess(fn func(unsafe.Pointer) int, arg unsafe.Pointer, a *ProcessAttr) (Process, error) {
	me := current()
	if me == nil {
		if err := ready(); err != nil {
			return Process{}, err
		}
	} else if me.dying {
		return Process{}, ErrExiting
	}
	if err := a.check(); err != nil {
		return Process{}, err
	}
	return launch(me, fn, arg, a, 0)
}

// launches counts those of goroutines, which enter the scheduler once in a
// while, for the reason that makeWay gives: one that only makes children and
// waits for them would have its P taken away, and the runtime's monitor run
// every 20 us beside it.
var launches atomic.Uint32

// launch is startProcess after the checks. exec is the *execState of a child
// of SpawnExec, else 0.
func launch(me *control, fn func(unsafe.Pointer) int, arg unsafe.Pointer, a *ProcessAttr, exec uintptr) (Process, error) {
	if asm.Current() == nil {
		if launches.Add(1)%64 == 0 {
			runtime.Gosched()
		}
	}
	flags := a.Flags | CloneSetTLS
	if flags&CloneParent != 0 && flags&(CloneDetached|CloneThread) == 0 {
		flags |= ClonePIDFD // its ID can be used again when it has ended, as its end is another's to collect
	}
	p, r, err := allocProc(flags)
	if err != nil {
		return Process{}, err
	}
	r.owner = int32(getpid())

	twice := fn == nil && exec == 0
	var c *control
	var kept childState
	if twice && me != nil {
		c, kept = me, me.proc // the child goes on with a copy of this thread
		flags &^= CloneSetTLS
	} else if c, err = newControl(a.processStack(twice), (&Attr{GuardSize: a.GuardSize}).guardSize()); err != nil {
		r.mu.Lock()
		r.drop()
		return Process{}, err
	}
	// Does the child run in this memory when the call has returned?
	concurrent := flags&CloneVM != 0 && (flags&CloneVfork == 0 || flags&CloneThread != 0)
	s := &c.proc
	s.fill(c, flags, fn, arg, a)
	s.exec = exec
	if flags&CloneThread != 0 {
		s.record = uintptr(unsafe.Pointer(r))
	}
	if asm.Current() == nil {
		escape(unsafe.Pointer(a.ParentTID), unsafe.Pointer(a.ChildTID), unsafe.Pointer(unsafe.SliceData(a.Stack)), arg, *(*unsafe.Pointer)(unsafe.Pointer(&fn)))
		if concurrent {
			r.rooted = true
			rootProc(r.index, procRoot{*(*unsafe.Pointer)(unsafe.Pointer(&fn)), arg, unsafe.Pointer(a.ParentTID), unsafe.Pointer(a.ChildTID)})
		}
	}
	c.Fault = *(*uintptr)(unsafe.Pointer(&processFaultEntry))
	c.Entry = *(*uintptr)(unsafe.Pointer(&processEntry))
	if a.Stack != nil {
		lo := uintptr(unsafe.Pointer(unsafe.SliceData(a.Stack)))
		c.G.StackLo, c.G.StackHi = lo, lo+uintptr(len(a.Stack))
		c.G.StackGuard0, c.G.StackGuard1 = lo+layout.Guard, lo+layout.Guard
	}
	if concurrent && flags&(CloneChildSetTID|CloneChildClearTID) == 0 {
		s.clear = uintptr(unsafe.Pointer(&r.exit))
	}
	read := -1
	if a.AsRoot || exec != 0 && !vforkShares() {
		if read, err = s.openReport(); err != nil {
			c.abandon(me, twice, kept)
			r.mu.Lock()
			r.drop()
			return Process{}, err
		}
	}

	pid, clone3, errno := c.clone(a, twice, c.G.StackLo, c.G.StackHi)
	if pid == 0 && errno == 0 {
		// The child of Fork, on a copy of the caller's stack.
		me = current()
		me.becomeProcess()
		return Process{}, nil
	}
	pidfd := s.pidfd
	r.leaving = flags&CloneVfork != 0 && s.left
	s.closeReport()
	if errno == 0 && concurrent {
		r.ctl = uintptr(unsafe.Pointer(c))
		if s.clear == 0 {
			r.flags |= lingers
		}
	} else {
		c.abandon(me, twice, kept)
	}
	if errno != 0 {
		if read >= 0 {
			closeFD(read)
		}
		r.mu.Lock()
		r.drop()
		return Process{}, cloneFailed(clone3, errno, a.Flags)
	}
	if flags&ClonePIDFD != 0 {
		r.pidfd = pidfd
	}
	atomic.StoreInt32(&r.pid, int32(pid))
	runtime.KeepAlive(a) // in use by a child with CLONE_VFORK until here
	runtime.KeepAlive(arg)
	runtime.KeepAlive(fn)
	if read >= 0 {
		if err := p.readReport(read, exec); err != nil {
			return Process{}, err
		}
	}
	return p, nil
}

// lingers marks a child with CLONE_VM whose end the kernel tells to an address
// of the caller's: its stack is in use until its end has been collected.
const lingers Flags = 1 << 63

// abandon gives back the memory of a child that does not need it, as it has
// a copy, or is gone.
func (c *control) abandon(me *control, twice bool, kept childState) {
	if twice && me != nil {
		me.proc = kept
		me.Fault = *(*uintptr)(unsafe.Pointer(&faultEntry))
		if kept.on {
			me.Fault = *(*uintptr)(unsafe.Pointer(&processFaultEntry))
		}
		return
	}
	c.endProcess()
}

// endProcess recycles the memory of a process that no longer runs on it.
func (c *control) endProcess() {
	c.proc = childState{}
	hi := (uintptr(unsafe.Pointer(c)) - tls.Below()) &^ 15
	tls.Init(&c.TCB, c.base+sigArea+c.guard, hi, layout.Guard, &threadEntry)
	c.initFaults()
	c.recycle()
}

func (a *ProcessAttr) processStack(twice bool) uintptr {
	switch {
	case a.Stack != nil || twice: // it has another
		return MinStackSize
	case a.StackSize != 0:
		return uintptr(a.StackSize)
	}
	return DefaultStackSize
}

// clone3Works is whether clone3 with CLONE_CLEAR_SIGHAND is there: 0 until one
// of the two calls has worked.
var clone3Works atomic.Uint32

const (
	clone3Yes = 1
	clone3No  = 2
)

// clone makes the child of c.proc's arguments. On a goroutine it returns with
// everything as it was but the child; see CloneProcessBlocking.
//
// The locks: ForkLock, because the child gets a copy of the descriptors; this
// package's own, because the child of a copy gets them as they are, and must
// find them free and what they guard in order. It unlocks its copies.
func (c *control) clone(a *ProcessAttr, twice bool, lo, hi uintptr) (pid uintptr, clone3 bool, errno syscall.Errno) {
	s := &c.proc
	const both = ClonePIDFD | CloneParentSetTID // clone(2) has one argument for the two
	needs3 := s.flags&clone3Only != 0 || s.flags&both == both || s.nsetTID > 0
	clone3 = needs3 || clone3Works.Load() != clone3No && s.flags&CloneDetached == 0
	if s.flags&CloneFiles == 0 && asm.Current() == nil {
		syscall.ForkLock.Lock()
	}
	if s.locked = s.flags&(CloneVM|CloneVfork) == 0; s.locked {
		lockAll()
	}
	for {
		s.cleared = false
		if clone3 {
			s.clone3Args(a, lo, hi, twice)
		} else {
			s.clone2Args(a, hi, twice)
		}
		var e uintptr
		if asm.Current() != nil {
			pid, e = asm.CloneProcess(&s.args)
		} else {
			pid, e = c.cloneHosted(twice)
		}
		errno = syscall.Errno(e)
		if pid == 0 && errno == 0 {
			return 0, clone3, 0
		}
		if errno == 0 {
			if clone3 && s.cleared {
				clone3Works.CompareAndSwap(0, clone3Yes)
			}
			break
		}
		old := errno == syscall.ENOSYS || clone3Works.Load() == 0 && (errno == syscall.EINVAL || errno == syscall.EPERM)
		if !clone3 || !old {
			break
		}
		if needs3 {
			if s.implied && s.cleared && errno == syscall.EINVAL {
				s.implied = false // perhaps only that is not there
				continue
			}
			break
		}
		if errno == syscall.ENOSYS {
			clone3Works.CompareAndSwap(0, clone3No)
		}
		clone3 = false
	}
	if s.locked {
		unlockAll()
	}
	if s.flags&CloneFiles == 0 && asm.Current() == nil {
		syscall.ForkLock.Unlock()
	}
	return pid, clone3, errno
}

// cloneHosted is the call on a goroutine.
func (c *control) cloneHosted(twice bool) (pid, errno uintptr) {
	s := &c.proc
	switch {
	case twice:
		asm.Room()
		return asm.CloneProcessHere(&s.args, &c.G, layout.Guard)
	case s.flags&CloneThread != 0:
		// Not while the world stops: AllThreadsSyscall counts on it.
		return asm.CloneProcess(&s.args)
	}
	return asm.CloneProcessBlocking(&s.args)
}

// lockAll takes the locks of this package, and unlockAll gives them back.
func lockAll() {
	asm.Headroom()
	procs.mu.Lock()
	table.mu.Lock()
	cache.mu.Lock()
	faults.mu.Lock()
}

func unlockAll() {
	faults.mu.Unlock()
	cache.mu.Unlock()
	table.mu.Unlock()
	procs.mu.Unlock()
}

// getpid returns the process's ID. It asks where the memory can be another
// process's: on a child, which is never a goroutine.
func getpid() int {
	if asm.Current() == nil {
		return mainPID
	}
	pid, _, _ := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	return int(pid)
}

var mainPID = syscall.Getpid()

// escape has what p points to lie on the heap, where it does not move.
//
//go:noinline
func escape(all ...unsafe.Pointer) {
	for _, p := range all {
		if escaped.never {
			escaped.p = p
		}
	}
}

var escaped struct {
	never bool
	p     unsafe.Pointer
}
