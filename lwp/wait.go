package lwp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// WaitFlags say what a wait is for, waitid(2).
type WaitFlags int

const (
	WExited    WaitFlags = unix.WEXITED
	WStopped   WaitFlags = unix.WSTOPPED
	WContinued WaitFlags = unix.WCONTINUED
	WNoHang    WaitFlags = unix.WNOHANG // ErrRuns in place of a wait
	WNoWait    WaitFlags = unix.WNOWAIT // leaves what happened to the next wait
	WClone     WaitFlags = unix.WCLONE  // only a child whose termination signal is not SIGCHLD; without it and WAll, only one whose signal is
	WAll       WaitFlags = unix.WALL    // both
)

const waitAll = WExited | WStopped | WContinued | WNoHang | WNoWait | WClone | WAll

// A State is what became of a process.
type State struct {
	PID    int
	Code   int // unix.CLD_*, waitid(2)
	Status int // the exit code, or the signal that killed, stopped or continued it
	Usage  unix.Rusage
}

// Exited says whether the process has ended by itself.
func (s State) Exited() bool { return s.Code == cldExited }

// ExitCode returns what the process has ended with, or -1 if it did not end by itself.
func (s State) ExitCode() int {
	if !s.Exited() {
		return -1
	}
	return s.Status
}

// Signal returns the signal that killed, stopped or continued the process, or 0.
func (s State) Signal() syscall.Signal {
	if s.Exited() {
		return 0
	}
	return syscall.Signal(s.Status)
}

// Values of State.Code, siginfo_t of SIGCHLD.
const (
	cldExited    = 1
	cldKilled    = 2
	cldDumped    = 3
	cldTrapped   = 4
	cldStopped   = 5
	cldContinued = 6
)

// String returns, for instance, "exit status 3" or "killed by SIGTERM".
//
// Context: goroutine.
func (s State) String() string {
	sig := unix.SignalName(syscall.Signal(s.Status))
	if sig == "" {
		sig = fmt.Sprint("signal ", s.Status)
	}
	switch s.Code {
	case cldExited:
		return fmt.Sprint("exit status ", s.Status)
	case cldKilled:
		return "killed by " + sig
	case cldDumped:
		return "killed by " + sig + ", core dumped"
	case cldTrapped:
		return "trapped by " + sig
	case cldStopped:
		return "stopped by " + sig
	case cldContinued:
		return "continued by " + sig
	}
	return fmt.Sprintf("code %d, status %d", s.Code, s.Status)
}

// Wait waits until p has ended and collects it: its ID can be used again, and p
// is no longer good. Of several callers one gets the State.
//
// Context: goroutine or thread. A goroutine waits for p's descriptor in the
// runtime's poller. It blocks a thread where there is none (pidfd_open(2), Linux
// 5.3), and in case p soon ends for up to 5 ms, if no more than GOMAXPROCS
// goroutines do so.
// Errors: ErrNoProcess; ErrWaited; ErrNotChild for a process with CloneParent,
// on a handle that a forked child has copied, or where SIGCHLD is ignored or
// somebody waits for any child.
// Ordering: with CloneVM, what p did synchronizes before Wait returns.
// Source: waitid(2), pidfd_open(2).
func (p Process) Wait() (State, error) { return p.WaitWith(WExited | WAll) }

// WaitWith is Wait for what flags say. Only a wait for WExited without WNoWait
// that finds p ended collects it.
//
// Context: goroutine or thread; a wait for WStopped or WContinued blocks the
// goroutine's thread.
// Errors: as Wait; ErrRuns; *Error with EINVAL for flags that ask for nothing.
func (p Process) WaitWith(flags WaitFlags) (State, error) {
	if flags&^waitAll != 0 || flags&(WExited|WStopped|WContinued) == 0 {
		return State{}, failed(opWaitid, unix.EINVAL)
	}
	s, err := p.try(flags)
	if err != ErrRuns || flags&WNoHang != 0 {
		return s, err
	}
	if asm.Current() == nil {
		if flags&(WStopped|WContinued) == 0 {
			return p.poll(context.Background(), flags)
		}
	}
	return p.block(flags)
}

// WaitContext is Wait that gives up when ctx is done. p goes on then.
//
// Context: goroutine.
// Errors: as Wait; ctx.Err(); ErrHosted on a thread.
func (p Process) WaitContext(ctx context.Context) (State, error) {
	if asm.Current() != nil {
		return State{}, ErrHosted
	}
	s, err := p.try(WExited | WAll)
	if err != ErrRuns {
		return s, err
	}
	return p.poll(ctx, WExited|WAll)
}

// child is the siginfo_t of waitid.
type child struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

// try is WaitWith with WNoHang, but for a child that is exiting.
func (p Process) try(flags WaitFlags) (s State, err error) {
	r, err := p.lock()
	if err != nil {
		return s, err
	}
	switch {
	case r.flags&CloneThread != 0:
		return r.tryThread(flags)
	case r.owner != int32(getpid()):
		r.mu.Unlock()
		return s, ErrNotChild
	}
	short := flags&(WNoHang|WExited) == WExited && r.exiting()
	if !short {
		flags |= WNoHang
	}
	var info child
	errno := waitid(unix.P_PID, int(r.pid), &info, flags, &s.Usage, short)
	switch {
	case errno == unix.ECHILD:
		// It is not there, or not ours, or of the other kind.
		if flags&(WExited|WAll|WNoWait) == WExited|WAll && r.flags&CloneParent == 0 {
			r.gone()
		} else {
			r.mu.Unlock()
		}
		return s, ErrNotChild
	case errno != 0:
		r.mu.Unlock()
		return s, failed(opWaitid, errno)
	case info.pid == 0:
		r.mu.Unlock()
		return s, ErrRuns
	}
	s.PID, s.Code, s.Status = int(info.pid), int(info.code), int(info.status)
	if flags&WNoWait == 0 && s.Code <= cldDumped {
		r.gone()
	} else {
		r.mu.Unlock()
	}
	return s, nil
}

// exiting says whether the child is on its way through exit(2), past where
// anything could stop it: it was about to call it, and has let go of the memory.
// It can be waited for in some microseconds, which try does with r locked; the
// poller would take longer.
func (r *procRecord) exiting() bool {
	return r.leaving || r.ctl != 0 && (*control)(pointer(r.ctl)).proc.left && atomic.LoadUint32(&r.exit) == 0
}

// gone drops r, locked, whose process has ended.
func (r *procRecord) gone() {
	if r.flags&lingers != 0 {
		r.exit = 0 // who has been collected has no memory
	}
	r.letGo()
}

// tryThread is try for a task of CLONE_THREAD, which has no end to collect.
func (r *procRecord) tryThread(flags WaitFlags) (s State, err error) {
	switch {
	case flags&WExited == 0:
		err = ErrNotChild
	case atomic.LoadUint32(&r.exit) != 0:
		err = ErrRuns
	default:
		s = State{PID: int(r.pid), Code: cldExited, Status: int((*control)(pointer(r.ctl)).proc.code)}
		if flags&WNoWait == 0 {
			r.drop()
			return s, nil
		}
	}
	r.mu.Unlock()
	return s, err
}

func waitid(kind, id int, info *child, flags WaitFlags, usage *unix.Rusage, blocks bool) syscall.Errno {
	errno := unix.EINTR
	for errno == unix.EINTR {
		if asm.Current() == nil { // on its own, for the check of freestanding code to see it
			if blocks {
				_, _, errno = unix.Syscall6(unix.SYS_WAITID, uintptr(kind), uintptr(id), uintptr(unsafe.Pointer(info)),
					uintptr(flags), uintptr(unsafe.Pointer(usage)), 0)
				continue
			}
		}
		_, _, errno = unix.RawSyscall6(unix.SYS_WAITID, uintptr(kind), uintptr(id), uintptr(unsafe.Pointer(info)),
			uintptr(flags), uintptr(unsafe.Pointer(usage)), 0)
	}
	return errno
}

// block waits in waitid, for something to happen that it leaves there, and then
// tries. It looks at p's ID without the lock: should p have been collected and
// its ID be another child's by then, the look sees the wrong one, and try does
// not take it.
func (p Process) block(flags WaitFlags) (State, error) {
	for {
		r, err := p.lock()
		if err != nil {
			return State{}, err
		}
		pid, thread, word := int(r.pid), r.flags&CloneThread != 0, &r.exit
		v := atomic.LoadUint32(word)
		r.mu.Unlock()
		if thread {
			if v != 0 {
				futex.Shared.Wait(word, v)
			}
		} else {
			var info child
			if errno := waitid(unix.P_PID, pid, &info, flags|WNoWait, nil, true); errno != 0 && errno != unix.ECHILD {
				return State{}, failed(opWaitid, errno)
			}
		}
		if s, err := p.try(flags); err != ErrRuns {
			return s, err
		}
	}
}

// patience is how long a goroutine waits in the kernel before it goes to the
// poller. It is more than a tick of most kernels, 4 ms: a timer that is due before
// that has the hardware's programmed, twice, which in a virtual machine takes as
// long as a switch of tasks.
const patience = 5 * time.Millisecond

// patients are the goroutines that wait so.
var patients atomic.Int32

// patiently waits a little for a process that soon ends, which is not worth the
// way to the poller and back. That holds an M: only as many do it at a time as
// could run.
func (p Process) patiently(flags WaitFlags) (s State, err error) {
	defer patients.Add(-1)
	if patients.Add(1) > int32(runtime.GOMAXPROCS(0)) {
		return s, ErrRuns
	}
	if p.lettingGo() {
		if s, err = p.try(flags); err != ErrRuns {
			return s, err
		}
	}
	fd, err := p.pollable()
	if err != nil {
		return s, ErrRuns // or what the poller finds
	}
	defer closeFD(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	timeout := unix.NsecToTimespec(int64(patience))
	unix.Ppoll(fds, &timeout, nil)
	return p.try(flags)
}

// lettingGo waits a little for a child that shares memory to let go of it, which
// is cheaper than its descriptor, and says whether it is one.
func (p Process) lettingGo() bool {
	r, err := p.lock()
	if err != nil {
		return false
	}
	v := atomic.LoadUint32(&r.exit)
	wait := r.ctl != 0 && r.flags&lingers == 0 && v != 0
	r.mu.Unlock()
	if wait {
		futex.Shared.WaitFor(&r.exit, v, patience)
	}
	return wait
}

// poll waits in the runtime's poller.
func (p Process) poll(ctx context.Context, flags WaitFlags) (s State, err error) {
	if ctx.Done() == nil {
		if s, err = p.patiently(flags); err != ErrRuns {
			return s, err
		}
	}
	fd, err := p.pollable()
	if err == errNoPidfd {
		if ctx.Done() == nil {
			return p.block(flags)
		}
		return p.ask(ctx, flags)
	}
	if err != nil {
		return s, err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return s, err
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	waitErr := conn.Read(func(uintptr) bool {
		s, err = p.try(flags)
		return err != ErrRuns
	})
	switch {
	case waitErr == nil:
		return s, err
	case ctx.Err() != nil:
		return State{}, ctx.Err()
	}
	return p.ask(ctx, flags) // not a descriptor that the poller takes
}

// ask tries now and then.
func (p Process) ask(ctx context.Context, flags WaitFlags) (State, error) {
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		s, err := p.try(flags)
		if err != ErrRuns {
			return s, err
		}
		select {
		case <-ctx.Done():
			return State{}, ctx.Err()
		case <-time.After(pause):
		}
	}
}

var errNoPidfd = errors.New("lwp: no pidfd")

// pollable returns a descriptor of p for the poller.
func (p Process) pollable() (fd int, err error) {
	r, err := p.lock()
	if err != nil {
		return -1, err
	}
	defer r.mu.Unlock()
	if r.flags&CloneThread != 0 {
		return -1, errNoPidfd
	}
	fd, err = unix.PidfdOpen(int(r.pid), unix.PIDFD_NONBLOCK)
	if err == unix.EINVAL { // before Linux 5.10
		if fd, err = unix.PidfdOpen(int(r.pid), 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	if err != nil {
		return -1, errNoPidfd
	}
	return fd, nil
}

// Signal sends sig to p; 0 only asks whether that can be done. It never reaches
// another process.
//
// Context: goroutine or thread.
// Errors: ErrNoProcess; ErrWaited; ErrNotChild on a handle that a forked child
// has copied; *Error with EPERM, EINVAL, or ESRCH for a process with
// CloneParent that is gone.
// Source: kill(2), pidfd_send_signal(2), tgkill(2).
func (p Process) Signal(sig syscall.Signal) error {
	r, err := p.lock()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	o := opKill
	switch {
	case r.flags&CloneThread != 0:
		o = opTgkill
		if errno = unix.ESRCH; atomic.LoadUint32(&r.exit) != 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_TGKILL, uintptr(getpid()), uintptr(r.pid), uintptr(sig))
		}
	case r.flags&CloneParent != 0 && r.pidfd >= 0:
		o = opPidfdSignal
		_, _, errno = unix.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(r.pidfd), uintptr(sig), 0, 0, 0, 0)
	case r.owner != int32(getpid()):
		r.mu.Unlock()
		return ErrNotChild // its ID can be another's by now
	default:
		_, _, errno = unix.RawSyscall(unix.SYS_KILL, uintptr(r.pid), uintptr(sig), 0)
	}
	r.mu.Unlock()
	if errno != 0 {
		return failed(o, errno)
	}
	return nil
}

// PIDFD returns a descriptor of p, close-on-exec: that of ClonePIDFD, or one
// that it opens. It is p's: Wait closes it when it collects p, so what is to
// outlive that must be a duplicate.
//
// Context: goroutine or thread.
// Errors: ErrNoProcess; ErrWaited; *Error (EMFILE, ENOSYS before Linux 5.3, EINVAL for a thread).
// Source: pidfd_open(2).
func (p Process) PIDFD() (int, error) {
	r, err := p.lock()
	if err != nil {
		return -1, err
	}
	if r.pidfd < 0 {
		if r.owner != int32(getpid()) {
			r.mu.Unlock()
			return -1, ErrNotChild
		}
		fd, _, errno := unix.RawSyscall(unix.SYS_PIDFD_OPEN, uintptr(r.pid), 0, 0)
		if errno != 0 {
			r.mu.Unlock()
			return -1, failed(opPidfdOpen, errno)
		}
		r.pidfd = int32(fd)
	}
	fd := int(r.pidfd)
	r.mu.Unlock()
	return fd, nil
}
