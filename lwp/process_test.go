package lwp_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestProcessReturnsItsCode(t *testing.T) {
	begin(t)
	for _, flags := range []lwp.Flags{0, lwp.CloneVfork, lwp.CloneVM, lwp.CloneVM | lwp.CloneVfork,
		lwp.CloneVM | lwp.CloneFS | lwp.CloneFiles, lwp.CloneVM | lwp.CloneSighand,
		lwp.CloneVM | lwp.CloneSighand | lwp.CloneThread | lwp.CloneSysvsem | lwp.CloneFS | lwp.CloneFiles} {
		if flags&lwp.CloneVM != 0 && flags&(lwp.CloneVfork|lwp.CloneThread) == 0 && lwptest.Emulated() {
			continue // no process that shares memory
		}
		for _, code := range []int{0, 1, 77, 255} {
			p := process(t, answer, &code, lwp.ProcessAttr{Flags: flags})
			if p.PID() == 0 {
				t.Errorf("%v: no PID", flags)
			}
			pid := p.PID()
			s := ends(t, p, code)
			if s.PID != pid {
				t.Errorf("%v: the wait is for %d, the process was %d", flags, s.PID, pid)
			}
			if _, err := p.Wait(); !errors.Is(err, lwp.ErrWaited) {
				t.Errorf("%v: a second wait gives %v", flags, err)
			}
		}
	}
	noChildren(t)
}

func TestForkReturnsTwice(t *testing.T) {
	begin(t)
	for i := range 20 {
		s := shared[scene](t)
		local := i
		p, err := lwp.Fork(lwp.ProcessAttr{})
		if err != nil {
			t.Fatal(err)
		}
		if p.IsChild() {
			local += 100
			s.n[0] = local
			s.note()
			lwp.ExitProcess(local)
		}
		pid := p.PID()
		ends(t, p, i+100)
		if local != i || s.n[0] != i+100 || s.pid != pid || s.ppid != os.Getpid() {
			t.Errorf("local is %d here, was %d there; child %d of %d, want %d of %d", local, s.n[0], s.pid, s.ppid, pid, os.Getpid())
		}
	}
	noChildren(t)
}

func forkOnThread(s *scene) {
	p, err := lwp.Fork(lwp.ProcessAttr{})
	if err != nil {
		s.n[1] = 1
		return
	}
	if p.IsChild() {
		s.n[0] = 42
		lwp.ExitProcess(9)
	}
	state, err := p.Wait()
	s.n[2], s.n[3] = state.ExitCode(), int(lwptest.CodeOf(err))
	p, _ = lwp.StartProcess(answer, &seven, lwp.ProcessAttr{})
	state, _ = p.Wait()
	s.n[4] = state.ExitCode()
	p, _ = lwp.VFork(answer, &seven, lwp.ProcessAttr{})
	state, _ = p.Wait()
	s.n[5] = state.ExitCode()
}

var seven = 7

func TestThreadsFork(t *testing.T) {
	begin(t)
	s := shared[scene](t)
	lwptest.OnThread(t, forkOnThread, s)
	if s.n[0] != 42 || s.n[1] != 0 || s.n[2] != 9 || s.n[3] != 0 || s.n[4] != 7 || s.n[5] != 7 {
		t.Errorf("got %v", s.n)
	}
	noChildren(t)
}

// nested has a child make a child, and a thread.
func nested(s *scene) int {
	p, err := lwp.StartProcess(answer, &seven, lwp.ProcessAttr{})
	if err != nil {
		return 1
	}
	state, err := p.Wait()
	if err != nil || state.ExitCode() != 7 {
		return 2
	}
	if s.n[1] == 0 {
		th, err := lwp.Start(func(s *scene) { s.n[0] = 5 }, s)
		if err != nil {
			return 3
		}
		if th.Join() != nil || s.n[0] != 5 {
			return 4
		}
	}
	p, err = lwp.Fork(lwp.ProcessAttr{})
	if err != nil {
		return 5
	}
	if p.IsChild() {
		lwp.ExitProcess(6)
	}
	state, _ = p.Wait()
	if state.ExitCode() != 6 {
		return 6
	}
	return 0
}

func TestChildrenOfChildren(t *testing.T) {
	begin(t)
	for range lwptest.Count(50, 5) {
		s := shared[scene](t)
		if lwptest.Emulated() {
			s.n[1] = 1 // qemu-user makes no thread in a child of a program with threads
		}
		ends(t, process(t, nested, s, lwp.ProcessAttr{}), 0)
	}
	noChildren(t)
}

func TestVForkSharesMemoryAndWaits(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "vfork that shares memory")
	n := 1
	p, err := lwp.VFork(func(n *int) int { lwp.Sleep(20 * time.Millisecond); *n = 42; return 3 }, &n, lwp.ProcessAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if n != 42 {
		t.Error("VFork returned before the child had ended, or it has other memory")
	}
	ends(t, p, 3)
}

// TestVForkSuspendsOneThreadAlone has other goroutines run, and the collector,
// while a child keeps its maker asleep.
func TestVForkSuspendsOneThreadAlone(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "vfork that suspends")
	s := shared[scene](t)
	done := make(chan lwp.Process)
	go func() {
		p, err := lwp.VFork(linger, s, lwp.ProcessAttr{})
		if err != nil {
			t.Error(err)
		}
		done <- p
	}()
	s.up.pass()
	lwptest.Within(t, "collections beside a vfork", func() {
		for range 3 {
			runtime.GC()
		}
	})
	select {
	case <-done:
		t.Error("VFork has returned while the child runs")
	default:
	}
	s.leave.open()
	ends(t, <-done, 0)
}

// TestForkLockIsHonoured: who makes a descriptor and then has it closed on exec
// holds ForkLock between the two, and no child may come to be with a copy.
func TestForkLockIsHonoured(t *testing.T) {
	begin(t)
	for _, c := range []struct {
		name string
		make func() (lwp.Process, error)
	}{
		{"StartProcess", func() (lwp.Process, error) { return lwp.StartProcess(answer, &seven, lwp.ProcessAttr{}) }},
		{"VFork", func() (lwp.Process, error) { return lwp.VFork(answer, &seven, lwp.ProcessAttr{}) }},
	} {
		syscall.ForkLock.RLock()
		made := make(chan lwp.Process)
		go func() {
			p, err := c.make()
			if err != nil {
				t.Error(err)
			}
			made <- p
		}()
		select {
		case p := <-made:
			t.Errorf("%s: a child was made under ForkLock", c.name)
			syscall.ForkLock.RUnlock()
			p.Wait()
			continue
		case <-time.After(20 * time.Millisecond):
		}
		syscall.ForkLock.RUnlock()
		ends(t, <-made, 7)
	}
	// The table is shared: there is no copy.
	if !lwptest.Emulated() {
		syscall.ForkLock.RLock()
		p := process(t, answer, &seven, lwp.ProcessAttr{Flags: lwp.CloneFiles})
		syscall.ForkLock.RUnlock()
		ends(t, p, 7)
	}
}

func TestWaitIsExact(t *testing.T) {
	begin(t)
	a, sa := lingers(t, lwp.ProcessAttr{})
	b, sb := lingers(t, lwp.ProcessAttr{})
	if _, err := a.WaitWith(lwp.WExited | lwp.WAll | lwp.WNoHang); err != lwp.ErrRuns {
		t.Errorf("a child that runs: %v", err)
	}
	sb.leave.open()
	if s, err := b.WaitWith(lwp.WExited | lwp.WNoWait); err != nil || s.ExitCode() != 0 {
		t.Errorf("a look: %v, %v", s, err)
	}
	ends(t, b, 0)
	if _, err := a.WaitWith(lwp.WExited | lwp.WNoHang); err != lwp.ErrRuns {
		t.Errorf("the other child was collected: %v", err)
	}
	sa.dismiss(t, a)
	for _, p := range []lwp.Process{a, b} {
		if err := p.Signal(0); !errors.Is(err, lwp.ErrWaited) {
			t.Errorf("a signal to a process that was waited for: %v", err)
		}
		if _, err := p.PIDFD(); !errors.Is(err, lwp.ErrWaited) {
			t.Errorf("its descriptor: %v", err)
		}
		if p.PID() != 0 {
			t.Error("it has a PID")
		}
	}
	if _, err := (lwp.Process{}).Wait(); !errors.Is(err, lwp.ErrNoProcess) {
		t.Errorf("wait for the zero Process: %v", err)
	}
	noChildren(t)
}

func TestManyWaitForOneProcess(t *testing.T) {
	begin(t)
	p, s := lingers(t, lwp.ProcessAttr{})
	const n = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[error]int{}
	for range n {
		wg.Go(func() {
			_, err := p.Wait()
			mu.Lock()
			got[err]++
			mu.Unlock()
		})
	}
	time.Sleep(5 * time.Millisecond)
	s.leave.open()
	wg.Wait()
	if got[nil] != 1 || got[lwp.ErrWaited] != n-1 {
		t.Errorf("%d waits end with %v", n, got)
	}
}

func TestWaitContextGivesUp(t *testing.T) {
	begin(t)
	p, s := lingers(t, lwp.ProcessAttr{})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := p.WaitContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	s.leave.open()
	if st, err := p.WaitContext(t.Context()); err != nil || st.ExitCode() != 0 {
		t.Errorf("got %v, %v", st, err)
	}
}

// TestWaitHoldsNoThread waits for many children at a time: in the poller, not
// each on a thread of Go's.
func TestWaitHoldsNoThread(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "a pidfd that can be polled")
	const n = 50
	s := shared[scene](t)
	var wg sync.WaitGroup
	for range n {
		p := process(t, linger, s, lwp.ProcessAttr{})
		wg.Go(func() { p.Wait() })
	}
	tasks := func() int {
		d, _ := os.ReadDir("/proc/self/task")
		return len(d)
	}
	time.Sleep(20 * time.Millisecond)
	if got := tasks(); got > n/2 {
		t.Errorf("%d threads while %d children are waited for", got, n)
	}
	s.leave.open()
	wg.Wait()
	noChildren(t)
}

func TestSignalsReachAProcess(t *testing.T) {
	begin(t)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGKILL, unix.SIGSEGV, unix.SIGUSR1, unix.SIGPIPE} {
		p, _ := lingers(t, lwp.ProcessAttr{})
		if err := p.Signal(sig); err != nil {
			t.Error(err)
		}
		s, err := p.Wait()
		if err != nil || s.Signal() != sig || s.ExitCode() != -1 {
			t.Errorf("%v: %v, %v", sig, s, err)
		}
	}
	// The same with descriptors of the process.
	p, _ := lingers(t, lwp.ProcessAttr{Blocked: 1 << (unix.SIGTERM - 1)})
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Millisecond)
	if _, err := p.WaitWith(lwp.WExited | lwp.WNoHang); err != lwp.ErrRuns {
		t.Errorf("a blocked signal has ended the process: %v", err)
	}
	p.Signal(unix.SIGKILL)
	if s, _ := p.Wait(); s.Signal() != unix.SIGKILL {
		t.Errorf("got %v", s)
	}
}

func TestStopAndContinueAreSeen(t *testing.T) {
	begin(t)
	p, s := lingers(t, lwp.ProcessAttr{})
	for _, c := range []struct {
		sig  syscall.Signal
		wait lwp.WaitFlags
		text string
	}{{unix.SIGSTOP, lwp.WStopped, "stopped by SIGSTOP"}, {unix.SIGCONT, lwp.WContinued, "continued by SIGCONT"}} {
		if err := p.Signal(c.sig); err != nil {
			t.Error(err)
		}
		if st, err := p.WaitWith(c.wait | lwp.WAll); err != nil || st.String() != c.text {
			t.Errorf("%v: %v, %v", c.sig, st, err)
		}
	}
	s.dismiss(t, p)
}

func derefNil(n *int) int {
	var p *int
	return *p + *n
}

func abortIt(*int) int {
	lwp.Abort("enough")
	return 0
}

func exitIt(n *int) int {
	lwp.ExitProcess(*n)
	return 0
}

func panicIt(n *int) int { panic("no") }

func TestFaultEndsTheProcessWithItsSignal(t *testing.T) {
	begin(t)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	old, _ := unix.Dup(2)
	unix.Dup3(int(null.Fd()), 2, 0) // what the children print is another test's
	defer func() { unix.Dup3(old, 2, 0); unix.Close(old) }()
	five := 5
	for _, flags := range []lwp.Flags{0, lwp.CloneVM | lwp.CloneVfork} {
		for _, fn := range []func(*int) int{derefNil, panicIt} {
			p := process(t, fn, &five, lwp.ProcessAttr{Flags: flags})
			if s, err := p.Wait(); err != nil || s.Signal() != unix.SIGSEGV {
				t.Errorf("%v: %v, %v", flags, s, err)
			}
		}
		ends(t, process(t, abortIt, &five, lwp.ProcessAttr{Flags: flags}), 2)
		ends(t, process(t, exitIt, &five, lwp.ProcessAttr{Flags: flags}), 5)
	}
	if !lwptest.Emulated() {
		ends(t, process(t, derefNil, &five, lwp.ProcessAttr{Flags: lwp.CloneVM | lwp.CloneSighand}), 128+int(unix.SIGSEGV))
	}
}

func TestFaultOfAProcessIsPrinted(t *testing.T) {
	if !lwptest.InChild() {
		lwptest.SkipRace(t)
		out, _ := lwptest.Child(t, nil)
		if !contains(out, "nil dereference") || !contains(out, "lwp: thread") {
			t.Errorf("printed\n%s", out)
		}
		return
	}
	p := process(t, derefNil, new(int), lwp.ProcessAttr{})
	p.Wait()
}

func contains(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i:i+len(sub)] == sub {
			return true
		}
	}
	return false
}

// hooked runs a hook and a destructor at the end of a process.
func hooked(s *scene) int {
	lwp.OnExit(func(s *scene) { s.n[0]++ }, s)
	return 0
}

func TestExitHooksRunInAProcess(t *testing.T) {
	begin(t)
	s := shared[scene](t)
	ends(t, process(t, hooked, s, lwp.ProcessAttr{}), 0)
	if s.n[0] != 1 {
		t.Errorf("the hook ran %d times", s.n[0])
	}
}

// pointers stores pointers, as compiled code does, while the parent may have
// been marking at the fork: the copy of its flag stays set for good.
func pointers(s *scene) int {
	for i := range 1000 {
		cell.p = &seven
		cell.s = "text"
		s.n[0] = i
	}
	return *cell.p
}

var cell struct {
	p *int
	s string
}

func TestPointerStoresInAChild(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	s := shared[scene](t)
	for range lwptest.Count(200, 30) {
		ends(t, process(t, pointers, s, lwp.ProcessAttr{}), 7)
	}
}

func TestUsageIsReported(t *testing.T) {
	begin(t)
	p := process(t, func(s *scene) int {
		for i := range 50_000_000 {
			s.n[i&7] += i
		}
		return 0
	}, shared[scene](t), lwp.ProcessAttr{})
	s := ends(t, p, 0)
	if s.Usage.Utime.Nano() <= 0 {
		t.Errorf("usage %+v", s.Usage)
	}
}
