package lwp

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// ExecAttr says how SpawnExec's program is to run. The zero ExecAttr is the
// caller's directory and environment, and no descriptors.
type ExecAttr struct {
	// ProcessAttr has CloneVM and CloneVfork added. Its stack is of no use here.
	ProcessAttr

	// Dir is the working directory; empty: the caller's.
	Dir string

	// Env is the environment; nil: the caller's.
	Env []string

	// Files are the descriptors that become 0, 1, 2 and so on; -1 leaves one
	// closed. What is not listed among the first three is closed, and the rest
	// is as close-on-exec has it.
	Files []int

	// Setsid makes the program the leader of a new session, Setpgid puts it
	// into the process group Pgid, or a new one for 0.
	Setsid, Setpgid bool
	Pgid            int

	// Credential is what the program runs as.
	Credential *syscall.Credential
}

// An ExecError is a program that was not executed.
type ExecError struct {
	Call  string // the system call
	Path  string
	Errno syscall.Errno
}

func (e *ExecError) Error() string {
	return "lwp: " + e.Call + " for " + e.Path + ": " + e.Errno.Error()
}

// Unwrap returns the Errno.
func (e *ExecError) Unwrap() error { return e.Errno }

// execState is what SpawnExec tells its child, and hears from it.
type execState struct {
	path, dir       *byte
	argv, env       []*byte
	fds             []int
	next            int // no descriptor in use by anybody is above
	setsid, setpgid bool
	pgid            int
	cred            *syscall.Credential
	call            uint32 // what failed, index of execCalls
	errno           uint32
}

// What can fail in the child, for ExecError.Call.
const (
	callExec = iota
	callSetsid
	callSetpgid
	callChdir
	callSetgroups
	callSetgid
	callSetuid
	callDup
	callMaps
)

var execCalls = [...]string{"execve", "setsid", "setpgid", "chdir", "setgroups", "setgid", "setuid", "dup3", "write of uid_map"}

// SpawnExec executes the program at path in a new process. No memory is
// copied: the child borrows this process's, and the calling thread waits, until
// the program is there or has failed to be.
//
// The program starts with no signal blocked but ProcessAttr.Blocked, and with
// handlers at their default. It has the descriptor limit of this process, whose
// soft limit the Go runtime has raised.
//
// Context: goroutine; it holds no P meanwhile.
// Errors: *ExecError for what the child could not do; ErrHosted on a thread; a
// *RuleError for CloneThread, CloneSighand, CloneFiles and CloneFS; else as
// StartProcess.
// Source: vfork(2), execve(2), posix_spawn(3).
func SpawnExec(path string, argv []string, attr ExecAttr) (Process, error) {
	if asm.Current() != nil {
		return Process{}, ErrHosted
	}
	if err := ready(); err != nil {
		return Process{}, err
	}
	a := attr.ProcessAttr
	a.Flags |= CloneVM | CloneVfork
	if err := a.check(); err != nil {
		return Process{}, err
	}
	if a.Flags&errSpawnFlags.Flags != 0 {
		return Process{}, errSpawnFlags
	}
	x, err := newExecState(path, argv, &attr)
	if err != nil {
		return Process{}, err
	}
	p, err := launch(nil, nil, nil, &a, uintptr(unsafe.Pointer(x)))
	if err == nil && x.errno != 0 {
		p.collect()
		err = &ExecError{execCalls[x.call], path, syscall.Errno(x.errno)}
		p = Process{}
	}
	runtime.KeepAlive(x)
	return p, err
}

// collect takes back a child that has failed: a sibling is its parent's.
func (p Process) collect() {
	if _, err := p.Wait(); err != nil {
		p.Release()
	}
}

func newExecState(path string, argv []string, attr *ExecAttr) (x *execState, err error) {
	x = &execState{setsid: attr.Setsid, setpgid: attr.Setpgid, pgid: attr.Pgid, cred: attr.Credential}
	if x.path, err = syscall.BytePtrFromString(path); err != nil {
		return nil, &ExecError{"execve", path, syscall.EINVAL}
	}
	if len(argv) == 0 {
		argv = []string{path}
	}
	if x.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return nil, &ExecError{"execve", path, syscall.EINVAL}
	}
	env := attr.Env
	if env == nil {
		env = os.Environ()
	}
	if x.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return nil, &ExecError{"execve", path, syscall.EINVAL}
	}
	if attr.Dir != "" {
		if x.dir, err = syscall.BytePtrFromString(attr.Dir); err != nil {
			return nil, &ExecError{"chdir", path, syscall.EINVAL}
		}
	}
	x.fds = append(x.fds, attr.Files...)
	x.next = len(x.fds)
	for _, fd := range x.fds {
		x.next = max(x.next, fd+1)
	}
	return x, nil
}

// vforkShares says whether a child with CLONE_VM and CLONE_VFORK does share
// memory: some emulators make it a fork. A child's errors come by pipe then.
func vforkShares() bool {
	vforked.once.Do(func() {
		var word uint32
		p, err := VFork(func(w *uint32) int { *w = 1; return 0 }, &word, ProcessAttr{})
		if err == nil {
			p.Wait()
		}
		vforked.shares = word == 1 || err != nil
	})
	return vforked.shares
}

var vforked struct {
	once   sync.Once
	shares bool
}

// execMain is the life of SpawnExec's child until the program's: with all
// signals blocked until no handler of the Go runtime's is left.
func (c *control) execMain() {
	s := &c.proc
	x := (*execState)(pointer(s.exec))
	s.report[0] = -1
	if s.locked {
		unlockAll()
	}
	if !s.cleared {
		asm.ClearSignals()
	}
	s.dieWithParent()
	call, errno := uint32(callMaps), syscall.Errno(0)
	if s.maps[0][0] != 0 {
		errno = s.becomeRoot()
	}
	if errno == 0 {
		call, errno = x.prepare(s)
	}
	if errno == 0 {
		setMask(&s.blocked)
		call = callExec
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(x.path)),
			uintptr(unsafe.Pointer(&x.argv[0])), uintptr(unsafe.Pointer(&x.env[0])))
	}
	x.call, x.errno = call, uint32(errno)
	s.tell(call, errno)
	exitGroup(127)
}

// prepare makes the child what the program is to find. The descriptors come
// last, as what is closed there may be needed before.
func (x *execState) prepare(s *childState) (call uint32, errno syscall.Errno) {
	if x.setsid {
		if _, _, errno = unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
			return callSetsid, errno
		}
	}
	if x.setpgid {
		if _, _, errno = unix.RawSyscall(unix.SYS_SETPGID, 0, uintptr(x.pgid), 0); errno != 0 {
			return callSetpgid, errno
		}
	}
	if x.dir != nil {
		if _, _, errno = unix.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(x.dir)), 0, 0); errno != 0 {
			return callChdir, errno
		}
	}
	if cred := x.cred; cred != nil {
		if !cred.NoSetGroups {
			var groups uintptr
			if len(cred.Groups) > 0 {
				groups = uintptr(unsafe.Pointer(&cred.Groups[0]))
			}
			if _, _, errno = unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(cred.Groups)), groups, 0); errno != 0 {
				return callSetgroups, errno
			}
		}
		if _, _, errno = unix.RawSyscall(unix.SYS_SETGID, uintptr(cred.Gid), 0, 0); errno != 0 {
			return callSetgid, errno
		}
		if _, _, errno = unix.RawSyscall(unix.SYS_SETUID, uintptr(cred.Uid), 0, 0); errno != 0 {
			return callSetuid, errno
		}
		s.dieWithParent() // a change of credentials has cleared it
	}
	return callDup, x.files(s)
}

// files puts descriptor x.fds[i] at i. What lies in the way is moved above all
// that are listed first; the report's pipe too.
func (x *execState) files(s *childState) syscall.Errno {
	next := x.next
	move := func(fd int) (int, syscall.Errno) {
		to, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, uintptr(next))
		return int(to), errno
	}
	if w := int(s.report[1]); w >= 0 && w < next {
		to, errno := move(w)
		if errno != 0 {
			return errno
		}
		s.report[1] = int32(to)
	}
	for i, fd := range x.fds {
		if fd >= 0 && fd < i {
			to, errno := move(fd)
			if errno != 0 {
				return errno
			}
			x.fds[i] = to
		}
	}
	for i, fd := range x.fds {
		var errno syscall.Errno
		switch {
		case fd < 0:
			unix.RawSyscall(unix.SYS_CLOSE, uintptr(i), 0, 0)
		case fd == i: // dup3 refuses that, and close-on-exec must go
			_, _, errno = unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFD, 0)
		default:
			_, _, errno = unix.RawSyscall(unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
		}
		if errno != 0 {
			return errno
		}
	}
	for i := len(x.fds); i < 3; i++ {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(i), 0, 0)
	}
	return 0
}

// The report of a child that does not share memory: one word by a pipe, the
// call and the errno of what failed, or 0.

// openReport makes the pipe and returns the end to read.
func (s *childState) openReport() (read int, err error) {
	if _, _, errno := unix.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&s.report)), unix.O_CLOEXEC, 0); errno != 0 {
		s.report = [2]int32{-1, -1}
		return -1, failed(opPipe, errno)
	}
	return int(s.report[0]), nil
}

// closeReport closes the parent's copy of the end to write.
func (s *childState) closeReport() {
	if s.report[1] >= 0 {
		closeFD(int(s.report[1]))
	}
}

func closeFD(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// tell runs in the child. what is an op, or for SpawnExec an index of execCalls.
func (s *childState) tell(what uint32, errno syscall.Errno) {
	if s.report[1] < 0 {
		return
	}
	v := what<<16 | uint32(errno)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(s.report[1]), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v))
	closeFD(int(s.report[1]))
	if s.report[0] >= 0 {
		closeFD(int(s.report[0]))
	}
}

// readReport reads the word, closes the pipe, and collects a child that failed.
func (p Process) readReport(fd int, exec uintptr) error {
	var v uint32
	var n uintptr
	errno := unix.EINTR
	for errno == unix.EINTR {
		if asm.Current() == nil {
			n, _, errno = unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v))
		} else {
			n, _, errno = unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v))
		}
	}
	closeFD(fd)
	if n == 0 || v == 0 || v&0xffff == 0 {
		return nil // it runs the program; or was killed, which Wait tells
	}
	if exec != 0 {
		x := (*execState)(pointer(exec))
		x.call, x.errno = v>>16, v&0xffff
		return nil // SpawnExec collects it
	}
	p.collect()
	return failed(op(v>>16), syscall.Errno(v&0xffff))
}
