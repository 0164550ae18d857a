package lwp_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// illegal are the pairs of flags that the kernel refuses, whatever else is set.
var illegal = []struct {
	flags lwp.Flags
	kind  string
}{
	{lwp.CloneSighand, "needs"},
	{lwp.CloneVM | lwp.CloneThread, "needs"},
	{lwp.CloneNewNS | lwp.CloneFS, "excludes"},
	{lwp.CloneNewUser | lwp.CloneFS, "excludes"},
	{lwp.CloneNewUser | lwp.CloneThread | lwp.CloneSighand | lwp.CloneVM, "excludes"},
	{lwp.CloneNewPID | lwp.CloneThread | lwp.CloneSighand | lwp.CloneVM, "excludes"},
	{lwp.CloneNewIPC | lwp.CloneSysvsem, "excludes"},
	{lwp.CloneClearSighand | lwp.CloneSighand | lwp.CloneVM, "excludes"},
	{lwp.ClonePIDFD | lwp.CloneDetached, "excludes"},
	{lwp.CloneDetached | lwp.CloneClearSighand, "excludes"},
}

// TestRulesAreTheKernels has both judge every pair of flags: the kernel must
// refuse what the rules do, and no pair that they let pass.
func TestRulesAreTheKernels(t *testing.T) {
	begin(t)
	needNamespaces(t)
	for _, c := range illegal {
		var rule *lwp.RuleError
		err := c.flags.Check()
		if !errors.As(err, &rule) || !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), c.kind) {
			t.Errorf("%v: %v, want a rule that %s", c.flags, err, c.kind)
		}
		if _, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{Flags: c.flags}); !errors.As(err, &rule) {
			t.Errorf("StartProcess with %v: %v", c.flags, err)
		}
	}
	all := lwp.AllFlags()
	if len(all) != 27 {
		t.Errorf("%d flags are described", len(all))
	}
	word := shared[[4]int32](t)
	for i, a := range all {
		for _, b := range all[i:] {
			flags := a.Flag | b.Flag
			if flags&lwp.CloneIntoCgroup != 0 {
				continue // needs a cgroup
			}
			// Not those that the raw call below could not stand.
			if flags&lwp.CloneThread != 0 && flags&lwp.CloneSighand != 0 {
				continue
			}
			got := kernelRefuses(flags, word)
			if want := flags.Check() != nil; got != want {
				t.Errorf("%v: refused by the kernel: %v, by the rules: %v", flags, got, want)
			}
		}
	}
	noChildren(t)
}

// kernelRefuses makes a child by the bare call that exits at once, and says
// whether it was EINVAL. The first child of a parent's is not collected: a sibling
// is the parent's.
func kernelRefuses(flags lwp.Flags, word *[4]int32) bool {
	var a asm.ProcessArgs
	addr := uintptr(unsafe.Pointer(word))
	c := asm.Clone3Args{
		Flags: uint64(flags &^ (lwp.CloneSetTLS | lwp.CloneParent)), ExitSignal: uint64(unix.SIGCHLD),
		PIDFD: uint64(addr), ParentTID: uint64(addr + 4), ChildTID: uint64(addr + 8),
	}
	if flags&lwp.CloneDetached != 0 && flags&(lwp.CloneClearSighand|lwp.CloneNewTime) == 0 {
		a.Clone2(uintptr(c.Flags)|uintptr(unix.SIGCHLD), 0, addr, addr+8, 0)
	} else {
		a.Clone3(&c)
	}
	pid, errno := asm.CloneProcess(&a)
	if errno != 0 {
		return syscall.Errno(errno) == unix.EINVAL
	}
	if flags&lwp.ClonePIDFD != 0 && word[0] > 2 {
		unix.Close(int(word[0]))
		word[0] = 0
	}
	for {
		if _, err := unix.Wait4(int(pid), nil, unix.WALL, nil); err != unix.EINTR {
			return false
		}
	}
}

func TestBadProcessAttributes(t *testing.T) {
	begin(t)
	odd := make([]byte, 64<<10)
	for uintptr(unsafe.Pointer(&odd[0]))%16 != 0 {
		odd = odd[1:]
	}
	for _, c := range []struct {
		name string
		attr lwp.ProcessAttr
		want string
	}{
		{"a stack too small", lwp.ProcessAttr{StackSize: 100}, "stack size"},
		{"a stack too large", lwp.ProcessAttr{StackSize: 1 << 40}, "stack size"},
		{"a negative guard", lwp.ProcessAttr{GuardSize: -7}, "guard size"},
		{"own stack too small", lwp.ProcessAttr{Stack: make([]byte, 16)}, "MinStackSize"},
		{"own stack empty", lwp.ProcessAttr{Stack: []byte{}}, "MinStackSize"},
		{"own stack unaligned", lwp.ProcessAttr{Stack: odd[8:32776]}, "multiple of 16"},
		{"unknown flag", lwp.ProcessAttr{Flags: 1 << 40}, "no flag"},
		{"signal -7", lwp.ProcessAttr{ExitSignal: -7}, "termination signal"},
		{"signal 65", lwp.ProcessAttr{ExitSignal: 65}, "termination signal"},
		{"a thread's signal", lwp.ProcessAttr{Flags: lwp.CloneVM | lwp.CloneSighand | lwp.CloneThread, ExitSignal: unix.SIGUSR1}, "exclude a termination signal"},
		{"no address", lwp.ProcessAttr{Flags: lwp.CloneParentSetTID}, "needs ParentTID"},
		{"no address", lwp.ProcessAttr{Flags: lwp.CloneChildClearTID}, "need ChildTID"},
		{"an address", lwp.ProcessAttr{ChildTID: new(int32)}, "ChildTID needs"},
		{"tid 0", lwp.ProcessAttr{SetTID: []int32{0}}, "above 0"},
		{"many tids", lwp.ProcessAttr{SetTID: make([]int32, 33)}, "at most 32"},
		{"cgroup without flag", lwp.ProcessAttr{Cgroup: 1}, "need each other"},
		{"flag without cgroup", lwp.ProcessAttr{Flags: lwp.CloneIntoCgroup}, "need each other"},
		{"pdeathsig", lwp.ProcessAttr{Pdeathsig: 99}, "Pdeathsig"},
		{"root of nothing", lwp.ProcessAttr{AsRoot: true}, "CLONE_NEWUSER"},
	} {
		p, err := lwp.StartProcess(answer, &seven, c.attr)
		if err == nil || !strings.Contains(err.Error(), c.want) || p != (lwp.Process{}) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := lwp.StartProcess[int](nil, nil, lwp.ProcessAttr{}); err != lwp.ErrNilFunc {
		t.Errorf("no function: %v", err)
	}
	if _, err := lwp.Fork(lwp.ProcessAttr{Flags: lwp.CloneVM}); err == nil || !strings.Contains(err.Error(), "NULL stack excludes CLONE_VM") {
		t.Errorf("Fork with CLONE_VM: %v", err)
	}
	if _, err := lwp.Fork(lwp.ProcessAttr{StackSize: 1 << 20}); err == nil {
		t.Error("Fork takes a stack size")
	}
	if _, err := lwp.VFork(answer, &seven, lwp.ProcessAttr{Flags: lwp.CloneThread}); err == nil {
		t.Error("VFork takes CLONE_THREAD")
	}
	if n := lwp.Processes(); n != 0 {
		t.Errorf("%d records are in use", n)
	}
	noChildren(t)
}

func TestOwnStack(t *testing.T) {
	begin(t)
	s := shared[[64 << 10]byte](t)
	at := shared[scene](t)
	p := process(t, func(s *scene) int {
		var here byte
		s.tp = uintptr(unsafe.Pointer(&here))
		return 0
	}, at, lwp.ProcessAttr{Stack: s[:]})
	ends(t, p, 0)
	if lo := uintptr(unsafe.Pointer(s)); at.tp < lo || at.tp >= lo+64<<10 {
		t.Errorf("the child ran at %#x, not on its stack at %#x", at.tp, lo)
	}
}

func TestKernelRefusalsSayWhatToDo(t *testing.T) {
	begin(t)
	needNamespaces(t)
	for _, c := range []struct {
		attr  lwp.ProcessAttr
		errno syscall.Errno
		text  string
	}{
		{lwp.ProcessAttr{SetTID: []int32{1}}, unix.EEXIST, "taken"},
		{lwp.ProcessAttr{SetTID: []int32{5, 5}}, unix.EINVAL, "more IDs than there are PID namespaces"},
		{lwp.ProcessAttr{SetTID: []int32{1 << 30}}, unix.EINVAL, "kernel.pid_max"},
		{lwp.ProcessAttr{Flags: lwp.CloneIntoCgroup, Cgroup: 9999}, unix.EBADF, "cgroup v2"},
	} {
		_, err := lwp.StartProcess(answer, &seven, c.attr)
		var ce *lwp.CloneError
		if !errors.As(err, &ce) || !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.text) || ce.Flags != c.attr.Flags {
			t.Errorf("got %v, want %v and %q", err, c.errno, c.text)
		}
	}
	if n := lwp.Processes(); n != 0 {
		t.Errorf("%d records are in use", n)
	}
}

// TestEveryErrnoOfCloneHasAdvice: those of clone(2), ERRORS.
func TestEveryErrnoOfCloneHasAdvice(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAGAIN, unix.ENOMEM, unix.EINVAL, unix.EPERM, unix.EEXIST, unix.ENOSPC, unix.EUSERS,
		unix.EBUSY, unix.EOPNOTSUPP, unix.EACCES, unix.ENOSYS, unix.EMFILE, unix.EBADF} {
		for _, flags := range []lwp.Flags{0, lwp.CloneNewPID, lwp.CloneVM} {
			err := &lwp.CloneError{Call: "clone3", Errno: errno, Flags: flags}
			if s := err.Error(); !strings.Contains(s, errno.Error()) || !strings.HasSuffix(s, ")") || len(s) < 60 {
				t.Errorf("%v: %s", errno, s)
			}
		}
	}
}

// withoutPrivilege makes a child without privilege that tries what needs it.
func withoutPrivilege(s *scene) int {
	s.call(0, unix.SYS_SETRESGID, 65534, 65534, 65534)
	s.call(1, unix.SYS_SETRESUID, 65534, 65534, 65534)
	for i, flag := range []lwp.Flags{lwp.CloneNewNS, lwp.CloneNewUTS, lwp.CloneNewIPC, lwp.CloneNewNet, lwp.CloneNewPID, lwp.CloneNewCgroup} {
		p, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{Flags: flag})
		if err == nil {
			p.Wait()
		}
		s.errno[i+2] = errnoOf(err)
	}
	_, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{SetTID: setTIDs[:]})
	s.errno[10] = errnoOf(err)
	return 0
}

var setTIDs = [1]int32{31999}

// errnoOf is freestanding.
func errnoOf(err error) uint32 {
	if e, ok := err.(*lwp.CloneError); ok {
		return uint32(e.Errno)
	}
	if err == nil {
		return 0
	}
	return ^uint32(0)
}

func TestNamespacesWithoutPrivilege(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "namespaces")
	lwptest.NeedRoot(t)
	s := shared[scene](t)
	ends(t, process(t, withoutPrivilege, s, lwp.ProcessAttr{}), 0)
	for i := 2; i < 8; i++ {
		if syscall.Errno(s.errno[i]) != unix.EPERM {
			t.Errorf("namespace %d: %v, want EPERM", i-2, syscall.Errno(s.errno[i]))
		}
	}
	if syscall.Errno(s.errno[10]) != unix.EPERM {
		t.Errorf("SetTID: %v, want EPERM", syscall.Errno(s.errno[10]))
	}
}

// TestClosedDescriptorOfAProcess has the descriptor closed behind the library's
// back, and another child's in its place: nothing may go to that one.
func TestClosedDescriptorOfAProcess(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "CLONE_PIDFD")
	a, sa := lingers(t, lwp.ProcessAttr{Flags: lwp.ClonePIDFD})
	fd, err := a.PIDFD()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	b, sb := lingers(t, lwp.ProcessAttr{Flags: lwp.ClonePIDFD})
	if other, _ := b.PIDFD(); other != fd {
		t.Logf("the other's descriptor is %d, not %d", other, fd)
	}
	if err := a.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if s, err := a.Wait(); err != nil || s.Signal() != unix.SIGTERM {
		t.Errorf("got %v, %v", s, err)
	}
	if _, err := b.WaitWith(lwp.WExited | lwp.WNoHang); err != lwp.ErrRuns {
		t.Errorf("the other process: %v", err)
	}
	_ = sa
	sb.dismiss(t, b)
}

func TestWaitForAnothersChild(t *testing.T) {
	begin(t)
	s := shared[scene](t)
	p, q := lingers(t, lwp.ProcessAttr{})
	theOthers = p
	c := process(t, func(s *scene) int {
		_, err := theOthers.Wait() // a sibling, by a handle that was copied
		if err == lwp.ErrNotChild && theOthers.Signal(unix.SIGKILL) == lwp.ErrNotChild {
			return 0
		}
		return 1
	}, s, lwp.ProcessAttr{})
	ends(t, c, 0)
	if _, err := p.WaitWith(lwp.WExited | lwp.WNoHang); err != lwp.ErrRuns {
		t.Errorf("the child that was not the other's: %v", err)
	}
	q.dismiss(t, p)
	for _, flags := range []lwp.WaitFlags{0, lwp.WNoHang, 1 << 20} {
		if _, err := p.WaitWith(flags); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a wait with %#x: %v", int(flags), err)
		}
	}
	// A child that somebody else has collected.
	p = process(t, answer, &seven, lwp.ProcessAttr{})
	for {
		if _, err := unix.Wait4(p.PID(), nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	if _, err := p.Wait(); !errors.Is(err, lwp.ErrNotChild) || !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child that is gone: %v", err)
	}
	if n := lwp.Processes(); n != 0 {
		t.Errorf("%d records are in use", n)
	}
}

var theOthers lwp.Process

func TestReleaseLeavesTheProcess(t *testing.T) {
	begin(t)
	for _, flags := range []lwp.Flags{0, lwp.CloneVM} {
		if flags != 0 && lwptest.Emulated() {
			continue
		}
		p, s := lingers(t, lwp.ProcessAttr{Flags: flags})
		pid := p.PID()
		if err := p.Release(); err != nil {
			t.Error(err)
		}
		if err := p.Release(); !errors.Is(err, lwp.ErrWaited) {
			t.Errorf("released twice: %v", err)
		}
		s.leave.open()
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				break
			}
		}
		ends(t, process(t, answer, &seven, lwp.ProcessAttr{}), 7) // sweeps
		if n := lwp.Processes(); n != 0 {
			t.Errorf("%v: %d records are in use", flags, n)
		}
	}
}

// TestRefusedProcessesLeakNothing: begin checks.
func TestRefusedProcessesLeakNothing(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "clone3")
	for range lwptest.Count(500, 100) {
		for _, a := range []lwp.ProcessAttr{
			{SetTID: []int32{1}},
			{Flags: lwp.CloneVM, SetTID: []int32{1}},
			{Flags: lwp.CloneVM | lwp.CloneVfork | lwp.ClonePIDFD, SetTID: []int32{1}},
		} {
			if _, err := lwp.StartProcess(answer, &seven, a); err == nil {
				t.Fatal("it was made")
			}
		}
		if _, err := lwp.Fork(lwp.ProcessAttr{SetTID: []int32{1}}); err == nil {
			t.Fatal("it was made")
		}
	}
	if n := lwp.Processes(); n != 0 {
		t.Errorf("%d records are in use", n)
	}
	noChildren(t)
}

func TestExitProcessElsewhereIsMisuse(t *testing.T) {
	begin(t)
	defer func() {
		if recover() == nil {
			t.Error("no panic on a goroutine")
		}
	}()
	lwp.ExitProcess(1)
}

func TestKcmpErrors(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "kcmp")
	me := os.Getpid()
	for _, c := range []struct {
		what    lwp.KcmpType
		a, b    int
		fd1     uintptr
		want    syscall.Errno
		subject string
	}{
		{lwp.KcmpVM, me, 1 << 30, 0, unix.ESRCH, "no such task"},
		{lwp.KcmpFile, me, me, 9999, unix.EBADF, "no such descriptor"},
		{99, me, me, 0, unix.EINVAL, "no such type"},
	} {
		if _, err := lwp.Kcmp(c.a, c.b, c.what, c.fd1, c.fd1); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.subject, err)
		}
	}
	s, err := lwp.SharingOf(me, me)
	if err != nil || !s.VM || !s.Files || len(s.Open) == 0 || len(s.Open) != len(s.Same) || !strings.Contains(s.String(), "memory") {
		t.Errorf("with itself: %v, %v", s, err)
	}
}

func TestProcessTableIsBounded(t *testing.T) {
	begin(t)
	end := time.Now().Add(5 * time.Second)
	var all []lwp.Process
	s := shared[scene](t)
	n := lwptest.Count(1200, 600) // more than a chunk
	for range n {
		p, err := lwp.StartProcess(linger, s, lwp.ProcessAttr{})
		if err != nil || time.Now().After(end) {
			t.Log(err)
			break
		}
		all = append(all, p)
	}
	s.leave.open()
	for _, p := range all {
		ends(t, p, 0)
	}
	if got := lwp.Processes(); got != 0 {
		t.Errorf("%d records are in use", got)
	}
}
