// Command flags shows what each flag of clone(2) does: a line says what was done
// and what each side saw, and the next what the kernel says of it.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// A stage is memory that every child shares, also one that has a copy of all else.
type stage struct {
	up, leave          uint32
	pid, ppid, tid     int
	saw                int // what the child found
	pointer            uintptr
	parentTID, childID int32
	want               lwp.Flags // for a child that makes another
	other              int32
}

var (
	shared   *stage // this run's
	variable int    // in memory that CLONE_VM shares
)

// enter notes who the child is, stay keeps it until the parent has looked.
func (s *stage) enter() {
	s.pid, s.ppid, s.tid = raw(unix.SYS_GETPID), raw(unix.SYS_GETPPID), raw(unix.SYS_GETTID)
	s.pointer = asm.ThreadPointer()
}

func (s *stage) stay() int {
	set(&s.up)
	wait(&s.leave)
	return 0
}

func raw(trap uintptr) int {
	r, _, _ := unix.RawSyscall(trap, 0, 0, 0)
	return int(r)
}

func set(w *uint32) {
	atomic.StoreUint32(w, 1)
	futex.Shared.Wake(w, futex.All)
}

func wait(w *uint32) {
	for atomic.LoadUint32(w) == 0 {
		futex.Shared.Wait(w, 0)
	}
}

// What children do.

func idle(s *stage) int { s.enter(); return s.stay() }

func store(s *stage) int { variable = 42; s.saw = variable; return idle(s) }

func umask(s *stage) int {
	unix.RawSyscall(unix.SYS_UMASK, 0o77, 0, 0)
	s.saw = 0o77
	return idle(s)
}

func closeOne(s *stage) int {
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(s.other), 0, 0)
	return idle(s)
}

func ignore(s *stage) int {
	act := [4]uint64{1} // SIG_IGN
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGWINCH), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
	return idle(s)
}

func nap(s *stage) int { lwp.Sleep(30 * time.Millisecond); s.saw = 1; return 0 }

// makeAnother makes a child with the flags that it is told, once it may.
func makeAnother(s *stage) int {
	s.stay()
	p, err := lwp.StartProcess(func(s *stage) int { s.enter(); return 0 }, s, lwp.ProcessAttr{Flags: s.want})
	if err != nil {
		return 1
	}
	s.saw = p.PID()
	if s.want&lwp.CloneParent != 0 {
		return 0
	}
	state, _ := p.Wait()
	return state.ExitCode()
}

// with makes a child that stays, has look see to both sides, and ends it.
func with(attr lwp.ProcessAttr, fn func(*stage) int, look func(p lwp.Process, s *stage) error) error {
	s := shared
	*s = stage{other: s.other, want: s.want}
	if attr.Flags&lwp.CloneParentSetTID != 0 {
		attr.ParentTID = &s.parentTID
	}
	if attr.Flags&(lwp.CloneChildSetTID|lwp.CloneChildClearTID) != 0 {
		attr.ChildTID = &s.childID
	}
	p, err := lwp.StartProcess(fn, s, attr)
	if err != nil {
		return err
	}
	wait(&s.up)
	err = look(p, s)
	set(&s.leave)
	_, waitErr := p.Wait()
	return errors.Join(err, waitErr)
}

func print(what, format string, args ...any) {
	fmt.Printf("%-22s %s\n", what, fmt.Sprintf(format, args...))
}

// sharing compares with and without a flag what a child leaves, and what kcmp says.
func sharing(flag, needs lwp.Flags, did string, fn func(*stage) int, seen func() any, of func(lwp.Shares) bool) error {
	var saw [2]any
	var same [2]bool
	for i, flags := range []lwp.Flags{flag | needs, needs} {
		err := with(lwp.ProcessAttr{Flags: flags}, fn, func(p lwp.Process, s *stage) error {
			shares, err := lwp.Sharing(p.PID())
			saw[i], same[i] = seen(), of(shares)
			return err
		})
		if err != nil {
			return err
		}
	}
	print(flag.String(), "child %s; parent sees %v, without the flag %v", did, saw[0], saw[1])
	print("", "kcmp: shared %v, without the flag %v", same[0], same[1])
	return nil
}

func mask() any { m := syscall.Umask(0o22); return fmt.Sprintf("umask %04o", m) }

func opened() any {
	_, err := unix.FcntlInt(uintptr(shared.other), unix.F_GETFD, 0)
	if err != nil {
		return "it closed"
	}
	return "it open"
}

// winch is the parent's action for SIGWINCH, as sigaction(2) has it.
var winch [4]uint64

func action() any {
	var act [4]uint64
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGWINCH), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0)
	if act[0] == 1 {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGWINCH), uintptr(unsafe.Pointer(&winch)), 0, 8, 0, 0)
		return "it ignored"
	}
	return "its own handler"
}

func shares() error {
	// An I/O context, for CLONE_IO to share: two that have none have the same.
	unix.RawSyscall(unix.SYS_IOPRIO_SET, 1, 0, 2<<13|4)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	shared.other = int32(null.Fd())
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGWINCH), 0, uintptr(unsafe.Pointer(&winch)), 8, 0, 0)
	fd, err := unix.Dup(int(null.Fd()))
	if err != nil {
		return err
	}
	shared.other = int32(fd)
	nothing := func() any { return "nothing" }
	return errors.Join(
		sharing(lwp.CloneVM, 0, "stores 42", store, func() any { v := variable; variable = 1; return v }, func(s lwp.Shares) bool { return s.VM }),
		sharing(lwp.CloneFS, 0, "sets umask 0077", umask, mask, func(s lwp.Shares) bool { return s.FS }),
		sharing(lwp.CloneFiles, 0, "closes a descriptor", closeOne, func() any {
			v := opened()
			if v == "it closed" {
				unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC)
			}
			return v
		}, func(s lwp.Shares) bool { return s.Files }),
		sharing(lwp.CloneSighand, lwp.CloneVM, "ignores SIGWINCH", ignore, action, func(s lwp.Shares) bool { return s.Sighand }),
		sharing(lwp.CloneIO, 0, "does nothing", idle, nothing, func(s lwp.Shares) bool { return s.IO }),
		sharing(lwp.CloneSysvsem, 0, "does nothing", idle, nothing, func(s lwp.Shares) bool { return s.Sysvsem }),
		unix.Close(fd),
	)
}

func kinship() error {
	me := os.Getpid()
	err := with(lwp.ProcessAttr{Flags: lwp.CloneVM | lwp.CloneSighand | lwp.CloneThread}, idle, func(p lwp.Process, s *stage) error {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", s.tid))
		print("CLONE_THREAD", "child is task %d of process %d; the parent is process %d", s.tid, s.pid, me)
		print("", "/proc/self/task has %d: %v", s.tid, err == nil)
		return err
	})
	if err != nil {
		return err
	}
	shared.want = lwp.CloneParent
	var maker int
	err = with(lwp.ProcessAttr{}, makeAnother, func(p lwp.Process, s *stage) error {
		maker = p.PID()
		set(&s.leave)
		_, err := p.WaitWith(lwp.WExited | lwp.WNoWait)
		return err
	})
	if err != nil {
		return err
	}
	sibling := shared.saw
	if _, err := unix.Wait4(sibling, nil, unix.WALL, nil); err != nil {
		return fmt.Errorf("wait for the sibling: %w", err)
	}
	print("CLONE_PARENT", "child %d made process %d, whose parent is %d, as the child's", maker, sibling, shared.ppid)
	print("", "wait4: process %d was this program's to wait for", sibling)

	began := time.Now()
	*shared = stage{}
	p, err := lwp.StartProcess(nap, shared, lwp.ProcessAttr{Flags: lwp.CloneVfork})
	if err != nil {
		return err
	}
	print("CLONE_VFORK", "child slept 30ms; parent came back from clone after %v", time.Since(began).Round(time.Millisecond))
	print("", "the child had ended by then: %v", shared.saw == 1)
	_, err = p.Wait()
	return err
}

// traced has a process make another while this program traces it.
func traced(flags lwp.Flags, options uintptr) (tracer bool, err error) {
	shared.want = flags
	err = with(lwp.ProcessAttr{}, makeAnother, func(p lwp.Process, s *stage) error {
		_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(p.PID()), 0, options, 0, 0)
		if errno != 0 {
			return fmt.Errorf("ptrace: %w", errno)
		}
		set(&s.leave)
		for {
			// Look, and leave the end of the child for its Wait.
			var info [32]int32
			_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
				unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT|unix.WALL, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			code, pid := info[2], int(info[4]) // siginfo_t
			if ended := code <= 3; errno != 0 || ended && pid == p.PID() {
				return nil
			}
			tracer = tracer || pid != p.PID()
			var st unix.WaitStatus
			if unix.Wait4(pid, &st, unix.WALL, nil); st.Stopped() {
				unix.PtraceCont(pid, 0)
			}
		}
	})
	return tracer, err
}

func tracing() error {
	const follow = unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEVFORK
	var got [4]bool
	for i, c := range []struct {
		flags   lwp.Flags
		options uintptr
	}{{lwp.ClonePtrace, 0}, {0, 0}, {lwp.CloneUntraced, follow}, {0, follow}} {
		var err error
		if got[i], err = traced(c.flags, c.options); err != nil {
			return err
		}
	}
	print("CLONE_PTRACE", "a traced child made another; its tracer got that too: %v, without the flag %v", got[0], got[1])
	print("CLONE_UNTRACED", "the same with a tracer that follows: %v, without the flag %v", got[2], got[3])
	return nil
}

func reports() error {
	err := with(lwp.ProcessAttr{Flags: lwp.ClonePIDFD}, idle, func(p lwp.Process, s *stage) error {
		fd, err := p.PIDFD()
		info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		_, pid, _ := strings.Cut(string(info), "\nPid:\t")
		pid, _, _ = strings.Cut(pid, "\n")
		print("CLONE_PIDFD", "parent has descriptor %d of process %d", fd, p.PID())
		print("", "/proc/self/fdinfo/%d: Pid %s", fd, pid)
		return err
	})
	if err != nil {
		return err
	}
	flags := lwp.CloneVM | lwp.CloneParentSetTID | lwp.CloneChildSetTID | lwp.CloneChildClearTID
	err = with(lwp.ProcessAttr{Flags: flags}, idle, func(p lwp.Process, s *stage) error {
		print("CLONE_PARENT_SETTID", "the kernel stored %d for the parent; the child is %d", s.parentTID, p.PID())
		print("CLONE_CHILD_SETTID", "the kernel stored %d for the child; it is %d", atomic.LoadInt32(&s.childID), s.tid)
		set(&s.leave)
		word := (*uint32)(unsafe.Pointer(&s.childID))
		for v := atomic.LoadUint32(word); v != 0; v = atomic.LoadUint32(word) {
			futex.Shared.Wait(word, v)
		}
		print("CLONE_CHILD_CLEARTID", "the child ended, the kernel stored %d there and woke the parent", s.childID)
		return nil
	})
	if err != nil {
		return err
	}
	err = with(lwp.ProcessAttr{Flags: lwp.CloneSetTLS}, idle, func(p lwp.Process, s *stage) error {
		print("CLONE_SETTLS", "the child's thread pointer is %#x, the parent's %#x", s.pointer, asm.ThreadPointer())
		return nil
	})
	if err != nil {
		return err
	}
	err = with(lwp.ProcessAttr{Flags: lwp.CloneDetached}, idle, func(p lwp.Process, s *stage) error { return nil })
	print("CLONE_DETACHED", "accepted, and nothing is different: %v", err == nil)
	print("", "with CLONE_PIDFD: %v", (lwp.CloneDetached | lwp.ClonePIDFD).Check())
	return err
}

// caught returns the signals with handlers, from /proc.
func caught(pid int) string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "\nSigCgt:\t")
	m, _, _ := strings.Cut(rest, "\n")
	return m
}

func others() error {
	err := with(lwp.ProcessAttr{Flags: lwp.CloneClearSighand}, idle, func(p lwp.Process, s *stage) error {
		print("CLONE_CLEAR_SIGHAND", "signals with handlers: child %s, parent %s", caught(p.PID()), caught(os.Getpid()))
		print("", "what the child has are those of faults, which it installed itself")
		return nil
	})
	if err != nil {
		return err
	}
	if err := cgroup(); err != nil {
		print("CLONE_INTO_CGROUP", "needs a cgroup v2 hierarchy that may be written: %v", err)
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	defer signal.Stop(c)
	err = with(lwp.ProcessAttr{ExitSignal: unix.SIGUSR1}, idle, func(p lwp.Process, s *stage) error {
		set(&s.leave)
		print("termination signal", "the child ended, the parent got: %v", <-c)
		return nil
	})
	if err != nil {
		return err
	}
	var free int
	with(lwp.ProcessAttr{}, idle, func(p lwp.Process, s *stage) error { free = p.PID(); return nil })
	err = with(lwp.ProcessAttr{SetTID: []int32{int32(free)}}, idle, func(p lwp.Process, s *stage) error {
		print("set_tid", "asked for process %d; the child says that it is %d", free, s.pid)
		return nil
	})
	if errors.Is(err, unix.EPERM) {
		print("set_tid", "needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: %v", err)
		err = nil
	}
	return err
}

func cgroup() error {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		sub, err := os.MkdirTemp(dir, "lwprt-flags-")
		if err != nil {
			return err
		}
		d, err := os.Open(sub)
		if err != nil {
			return errors.Join(err, os.Remove(sub))
		}
		err = with(lwp.ProcessAttr{Flags: lwp.CloneIntoCgroup, Cgroup: int(d.Fd())}, idle, func(p lwp.Process, s *stage) error {
			in, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID()))
			_, path, _ := strings.Cut(string(in), "0::")
			print("CLONE_INTO_CGROUP", "asked for %s", strings.TrimPrefix(sub, dir))
			print("", "/proc/%d/cgroup: %s", p.PID(), strings.TrimSpace(path))
			return err
		})
		d.Close()
		for end := time.Now().Add(5 * time.Second); os.Remove(sub) != nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		return err
	}
	return errors.New("none is mounted")
}

func namespaces() error {
	for _, c := range []struct {
		flag lwp.Flags
		kind string
	}{
		{lwp.CloneNewUser, "user"}, {lwp.CloneNewPID, "pid"}, {lwp.CloneNewNS, "mnt"}, {lwp.CloneNewUTS, "uts"},
		{lwp.CloneNewIPC, "ipc"}, {lwp.CloneNewNet, "net"}, {lwp.CloneNewCgroup, "cgroup"}, {lwp.CloneNewTime, "time"},
	} {
		attr := lwp.ProcessAttr{Flags: c.flag}
		if os.Geteuid() != 0 { // root in a user namespace of its own
			attr.Flags |= lwp.CloneNewUser
			attr.AsRoot = true
		}
		err := with(attr, idle, func(p lwp.Process, s *stage) error {
			ours, _ := os.Readlink("/proc/self/ns/" + c.kind)
			its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.PID(), c.kind))
			saw := ""
			if c.flag == lwp.CloneNewPID {
				saw = ", to itself it is process " + strconv.Itoa(s.pid)
			}
			print(c.flag.String(), "child %d is in a namespace of its own: %v%s", p.PID(), ours != its, saw)
			print("", "/proc: child %s, parent %s", its, ours)
			return err
		})
		if err != nil {
			print(c.flag.String(), "needs CAP_SYS_ADMIN, or user namespaces for ordinary users, and a kernel built with it: %v", err)
		}
	}
	return nil
}

func run() error {
	runtime.LockOSThread() // some of this is a thread's own
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	shared = (*stage)(unsafe.Pointer(&mem[0]))
	variable = 1
	for _, section := range []func() error{shares, kinship, tracing, reports, others, namespaces} {
		if err := section(); err != nil {
			return err
		}
	}
	for _, g := range lwp.GoneFlags() {
		print(g.Name, "gone (%s): %s", g.Since, g.Does)
	}
	return nil
}

func main() {
	err := run()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		fmt.Println("This program needs all of clone(2), clone3(2) and kcmp(2). Linux has them; qemu-user does not.")
	}
	if err != nil {
		log.Fatal("flags: ", err)
	}
}
