package lwp_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// pinned locks the test's goroutine to its thread: some of what is shared is a
// thread's own.
func pinned(t testing.TB) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

// sharing returns what the calling thread and p share.
func sharing(t testing.TB, p lwp.Process) lwp.Shares {
	t.Helper()
	s, err := lwp.Sharing(p.PID())
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("this kernel has no kcmp: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFlagShares has each flag that shares something in turn, alone or with
// what it needs: exactly that is shared, by the kernel's own account.
func TestFlagShares(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "processes that share")
	for _, flags := range []lwp.Flags{0, lwp.CloneVM, lwp.CloneFS, lwp.CloneFiles, lwp.CloneIO, lwp.CloneSysvsem,
		lwp.CloneVM | lwp.CloneSighand, lwp.CloneVM | lwp.CloneFS | lwp.CloneFiles | lwp.CloneIO | lwp.CloneSysvsem | lwp.CloneSighand} {
		t.Run(flags.String(), func(t *testing.T) {
			pinned(t)
			ioContext(t)
			p, s := lingers(t, lwp.ProcessAttr{Flags: flags})
			defer s.dismiss(t, p)
			got := sharing(t, p)
			for _, c := range []struct {
				flag lwp.Flags
				got  bool
			}{
				{lwp.CloneVM, got.VM}, {lwp.CloneFS, got.FS}, {lwp.CloneFiles, got.Files},
				{lwp.CloneIO, got.IO}, {lwp.CloneSysvsem, got.Sysvsem}, {lwp.CloneSighand, got.Sighand},
			} {
				if want := flags&c.flag != 0; c.got != want {
					t.Errorf("%v: shared is %v, want %v\n%v", c.flag, c.got, want, got)
				}
			}
			if len(got.Open) == 0 || len(got.Same) == 0 {
				t.Errorf("open files: %v, in common: %v", got.Open, got.Same)
			}
			for kind, same := range got.Namespaces {
				if !same {
					t.Errorf("a namespace %s of its own", kind)
				}
			}
		})
	}
}

// ioContext gives the calling thread an I/O context to share: two that have
// none have the same, to kcmp.
func ioContext(t testing.TB) {
	t.Helper()
	const whoProcess, bestEffort = 1, 2 << 13
	if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, 0, bestEffort|4); errno != 0 {
		t.Fatal("ioprio_set: ", errno)
	}
}

// TestFlagNamespaces has each namespace in turn, which alone is new then.
func TestFlagNamespaces(t *testing.T) {
	begin(t)
	needNamespaces(t)
	kinds := map[lwp.Flags]string{
		lwp.CloneNewNS: "mnt", lwp.CloneNewUTS: "uts", lwp.CloneNewIPC: "ipc", lwp.CloneNewNet: "net", lwp.CloneNewPID: "pid",
		lwp.CloneNewCgroup: "cgroup", lwp.CloneNewUser: "user", lwp.CloneNewTime: "time",
	}
	for flag, kind := range kinds {
		t.Run(flag.String(), func(t *testing.T) {
			if _, err := os.Stat("/proc/self/ns/" + kind); err != nil {
				t.Skip("this kernel has no such namespace: ", err)
			}
			p, s := lingers(t, lwp.ProcessAttr{Flags: flag})
			defer s.dismiss(t, p)
			for k, same := range sharing(t, p).Namespaces {
				own := k == kind || k == kind+"_for_children"
				if same == own {
					t.Errorf("namespace %s: the same is %v", k, same)
				}
			}
			if flag == lwp.CloneNewPID && (s.pid != 1 || s.ppid != 0) {
				t.Errorf("the first of a PID namespace is process %d of %d", s.pid, s.ppid)
			}
			if flag != lwp.CloneNewPID && (s.pid != p.PID() || s.ppid != os.Getpid()) {
				t.Errorf("process %d of %d", s.pid, s.ppid)
			}
		})
	}
}

func TestFlagThread(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "threads with all combinations of flags")
	p, s := lingers(t, lwp.ProcessAttr{Flags: lwp.CloneVM | lwp.CloneSighand | lwp.CloneThread | lwp.CloneFS | lwp.CloneFiles | lwp.CloneSysvsem})
	if s.pid != os.Getpid() || s.tid != p.PID() || s.tid == s.pid {
		t.Errorf("process %d, task %d; want process %d, task %d", s.pid, s.tid, os.Getpid(), p.PID())
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", s.tid)); err != nil {
		t.Error(err)
	}
	if _, err := p.WaitWith(lwp.WExited | lwp.WNoHang); err != lwp.ErrRuns {
		t.Errorf("it runs, and a wait says %v", err)
	}
	s.dismiss(t, p)
}

func TestFlagParent(t *testing.T) {
	if lwptest.MustPass(t, nil) { // a sibling is for the parent to collect, and that may not expect it
		return
	}
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "CLONE_PARENT")
	subreaper(t)
	// Two generations: what the child makes is this process's.
	s := shared[scene](t)
	p := process(t, func(s *scene) int {
		sib, err := lwp.StartProcess(linger, s, lwp.ProcessAttr{Flags: lwp.CloneParent})
		if err != nil {
			return 1
		}
		s.n[0] = sib.PID()
		s.up.pass()
		_, err = sib.Wait()
		if err != lwp.ErrNotChild {
			return 2
		}
		if sib.Signal(0) != nil {
			return 3
		}
		s.leave.open()
		return 0
	}, s, lwp.ProcessAttr{})
	ends(t, p, 0)
	if s.ppid != os.Getpid() || s.pid != s.n[0] {
		t.Errorf("the sibling is %d of %d, want %d of %d", s.pid, s.ppid, s.n[0], os.Getpid())
	}
	if pid, err := unix.Wait4(s.n[0], nil, unix.WALL, nil); err != nil || pid != s.n[0] {
		t.Errorf("wait for the sibling: %d, %v", pid, err)
	}
}

// subreaper has orphans become children of this process.
func subreaper(t testing.TB) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip("no subreaper: ", err)
	}
}

func TestFlagVfork(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "CLONE_VFORK")
	s := shared[scene](t)
	p := process(t, func(s *scene) int { lwp.Sleep(20 * time.Millisecond); s.n[0] = 1; return 0 }, s, lwp.ProcessAttr{Flags: lwp.CloneVfork})
	if s.n[0] != 1 {
		t.Error("the call returned before the child had ended")
	}
	ends(t, p, 0)
}

func TestFlagPIDFD(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "CLONE_PIDFD")
	files := func() int { d, _ := os.ReadDir("/proc/self/fd"); return len(d) }
	before := files()
	p, s := lingers(t, lwp.ProcessAttr{Flags: lwp.ClonePIDFD})
	if got := files(); got != before+1 {
		t.Errorf("%d descriptors, %d before", got, before)
	}
	fd, err := p.PIDFD()
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd)); !strings.Contains(string(info), fmt.Sprintf("Pid:\t%d\n", p.PID())) {
		t.Errorf("descriptor %d says %s", fd, info)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec: %#x, %v", flags, err)
	}
	s.dismiss(t, p)
	if got := files(); got != before {
		t.Errorf("%d descriptors after the wait, %d before", got, before)
	}
}

// ids is shared memory for what the kernel stores.
type ids struct {
	scene
	parent, child int32
}

func TestFlagTIDs(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "processes that share memory")
	s := shared[ids](t)
	p := process(t, func(s *ids) int {
		s.n[0] = int(atomic.LoadInt32(&s.child)) // before the first instruction of ours
		return linger(&s.scene)
	}, s, lwp.ProcessAttr{
		Flags:     lwp.CloneVM | lwp.CloneParentSetTID | lwp.CloneChildSetTID | lwp.CloneChildClearTID,
		ParentTID: &s.parent, ChildTID: &s.child})
	if got := int(atomic.LoadInt32(&s.parent)); got != p.PID() {
		t.Errorf("CLONE_PARENT_SETTID stored %d, want %d", got, p.PID())
	}
	s.up.pass()
	if s.n[0] != p.PID() {
		t.Errorf("CLONE_CHILD_SETTID stored %d, want %d", s.n[0], p.PID())
	}
	s.leave.open()
	lwptest.Within(t, "CLONE_CHILD_CLEARTID's wake", func() {
		for v := atomic.LoadInt32(&s.child); v != 0; v = atomic.LoadInt32(&s.child) {
			futex.Shared.Wait((*uint32)(unsafe.Pointer(&s.child)), uint32(v))
		}
	})
	ends(t, p, 0)

	// One at a time.
	for _, flag := range []lwp.Flags{lwp.CloneParentSetTID, lwp.CloneChildSetTID} {
		s := shared[ids](t)
		a := lwp.ProcessAttr{Flags: flag}
		if flag == lwp.CloneParentSetTID {
			a.ParentTID = &s.parent
		} else {
			a.ChildTID = &s.child
		}
		p := process(t, linger, &s.scene, a)
		s.up.pass()
		if int(s.parent) != p.PID() && flag == lwp.CloneParentSetTID || int(s.child) != p.PID() && flag == lwp.CloneChildSetTID ||
			s.parent != 0 && s.child != 0 {
			t.Errorf("%v: parent %d, child %d, want %d in one", flag, s.parent, s.child, p.PID())
		}
		s.dismiss(t, p)
	}
}

func TestFlagSetTLS(t *testing.T) {
	begin(t)
	pinned(t)
	s := shared[scene](t)
	p := process(t, func(s *scene) int {
		s.tp = asm.ThreadPointer()
		if asm.Current() == nil {
			return 1
		}
		return 0
	}, s, lwp.ProcessAttr{Flags: lwp.CloneSetTLS})
	ends(t, p, 0)
	if tp := asm.ThreadPointer(); s.tp == tp || s.tp == 0 {
		t.Errorf("thread pointer %#x in the child, %#x here", s.tp, tp)
	}
}

// caught returns the signals that have handlers in a process, by /proc.
func caught(t testing.TB, pid int) (mask uint64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nSigCgt:")
	fmt.Sscanf(rest, "%x", &mask)
	return mask
}

func TestFlagClearSighand(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "its own handlers in /proc")
	const faults = 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1)
	if caught(t, os.Getpid())&^faults == 0 {
		t.Fatal("this process has no handlers to clear")
	}
	for _, flags := range []lwp.Flags{lwp.CloneClearSighand, 0, lwp.CloneVM | lwp.CloneClearSighand} {
		p, s := lingers(t, lwp.ProcessAttr{Flags: flags})
		if got := caught(t, p.PID()); got != faults {
			t.Errorf("%v: handlers of %#x, want those of faults, %#x", flags, got, faults)
		}
		if mask, err := lwptest.SignalMask(fmt.Sprintf("/proc/%d", p.PID())); err != nil || mask != 0 {
			t.Errorf("%v: signals %#x blocked, %v", flags, mask, err)
		}
		s.dismiss(t, p)
	}
}

// cgroup2 returns where a cgroup v2 hierarchy is, to write to.
func cgroup2(t testing.TB) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		sub, err := os.MkdirTemp(dir, "lwprt-test-")
		if err != nil {
			t.Skip("no cgroup can be made: ", err)
		}
		t.Cleanup(func() {
			lwptest.Eventually(t, "the cgroup to be empty", func() bool { return os.Remove(sub) == nil })
		})
		return sub
	}
	t.Skip("no cgroup v2 is mounted")
	return ""
}

func TestFlagIntoCgroup(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "clone3")
	dir := cgroup2(t)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p, s := lingers(t, lwp.ProcessAttr{Flags: lwp.CloneIntoCgroup, Cgroup: int(d.Fd())})
	got := readTrim(t, fmt.Sprintf("/proc/%d/cgroup", p.PID()))
	if !strings.Contains(got, "0::/"+filepath.Base(dir)) {
		t.Errorf("the child is in %s, want %s", got, dir)
	}
	s.dismiss(t, p)
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = lwp.StartProcess(linger, s, lwp.ProcessAttr{Flags: lwp.CloneIntoCgroup, Cgroup: int(f.Fd())})
	var ce *lwp.CloneError
	if !errors.As(err, &ce) || !strings.Contains(err.Error(), "cgroup") {
		t.Errorf("a directory that is no cgroup: %v", err)
	}
}

// TestFlagDetached: the flag does nothing but be refused with others. That the
// kernel gets it shows in those refusals, made without this package's rules.
func TestFlagDetached(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "the kernel's rules")
	p, s := lingers(t, lwp.ProcessAttr{Flags: lwp.CloneDetached})
	s.dismiss(t, p)
	if p, err := lwp.StartUnchecked(answer, &seven, lwp.ProcessAttr{Flags: lwp.CloneDetached | lwp.ClonePIDFD}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the kernel does not get the flag: with CLONE_PIDFD %v", err)
		p.Wait()
	}
	var a asm.ProcessArgs
	a.Clone2(uintptr(lwp.CloneDetached|lwp.ClonePIDFD)|uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&s.n)), 0, 0)
	if _, errno := asm.CloneProcess(&a); syscall.Errno(errno) != unix.EINVAL {
		t.Errorf("clone with CLONE_DETACHED and CLONE_PIDFD: %v", syscall.Errno(errno))
	}
	c := asm.Clone3Args{Flags: uint64(lwp.CloneDetached)}
	a.Clone3(&c)
	if _, errno := asm.CloneProcess(&a); syscall.Errno(errno) != unix.EINVAL {
		t.Errorf("clone3 with CLONE_DETACHED: %v", syscall.Errno(errno))
	}
}

// tracee is a child that makes another, which stays.
func tracee(s *ids) int {
	s.up.open()
	s.leave.pass()
	q, err := lwp.StartProcess(func(s *ids) int { return 0 }, s, lwp.ProcessAttr{Flags: lwp.Flags(s.n[0])})
	if err != nil {
		return 1
	}
	s.n[1] = q.PID()
	st, err := q.Wait()
	if err != nil || st.ExitCode() != 0 {
		return 2
	}
	return 0
}

// traced has a tracee make a child with flags, while it is traced with options,
// and says whether the tracer came to trace the child too.
func traced(t *testing.T, flags lwp.Flags, options int) (followed bool) {
	t.Helper()
	s := shared[ids](t)
	s.n[0] = int(flags)
	p := process(t, tracee, s, lwp.ProcessAttr{})
	s.up.pass()
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(p.PID()), 0, uintptr(options), 0, 0); errno != 0 {
		s.leave.open()
		p.Signal(unix.SIGKILL)
		p.Wait()
		t.Skip("ptrace: ", errno)
	}
	s.leave.open()
	left := 1
	for end := time.Now().Add(30 * time.Second); left > 0 && time.Now().Before(end); {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if pid != p.PID() {
			followed = true
		}
		if st.Stopped() {
			unix.PtraceCont(pid, 0)
		} else if pid == p.PID() {
			left--
			if st.ExitStatus() != 0 {
				t.Errorf("the tracee ended with %#x", st)
			}
		}
	}
	p.Wait() // collected already: the record
	return followed
}

func TestFlagPtraceAndUntraced(t *testing.T) {
	if lwptest.MustPass(t, nil) { // it waits for any child
		return
	}
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "ptrace")
	pinned(t)
	const follow = unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEVFORK
	for _, c := range []struct {
		flags   lwp.Flags
		options int
		want    bool
	}{
		{0, 0, false},
		{lwp.ClonePtrace, 0, true},
		{0, follow, true},
		{lwp.CloneUntraced, follow, false},
	} {
		if got := traced(t, c.flags, c.options); got != c.want {
			t.Errorf("flags %v, options %#x: the child is traced: %v, want %v", c.flags, c.options, got, c.want)
		}
	}
}
