package lwp_test

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// maskIs is a child that looks at its signal mask.
func maskIs(want *uint64) int {
	if lwptest.Mask() != *want {
		return 1
	}
	return 0
}

type maskTrial struct {
	want uint64
	bad  int
}

// masks makes children with every kind of memory, from where it is called: what
// they begin with is what was asked for, whatever the caller has blocked.
func masks(m *maskTrial) {
	for _, flags := range []lwp.Flags{0, lwp.CloneVM, lwp.CloneVfork, lwp.CloneVM | lwp.CloneVfork} {
		for _, m.want = range []uint64{0, 1<<(unix.SIGTERM-1) | 1<<(unix.SIGCHLD-1)} {
			p, err := lwp.StartProcess(maskIs, &m.want, lwp.ProcessAttr{Flags: flags, Blocked: m.want})
			if err != nil {
				m.bad++
				continue
			}
			if s, err := p.Wait(); err != nil || s.ExitCode() != 0 {
				m.bad++
			}
		}
	}
}

func TestTheMaskOfAProcess(t *testing.T) {
	begin(t)
	lwptest.NeedClone(t, unix.CLONE_VM)
	m := new(maskTrial)
	lwptest.OnThread(t, masks, m)
	if m.bad != 0 {
		t.Errorf("of a thread's children %d have another mask than they were given", m.bad)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old := lwptest.Mask()
	defer unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	for _, own := range []uint64{old, old | 1<<(unix.SIGUSR1-1)} {
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&own)), 0, 8, 0, 0)
		*m = maskTrial{}
		if masks(m); m.bad != 0 {
			t.Errorf("with %#x blocked, %d children have another mask than they were given", own, m.bad)
		}
		if now := lwptest.Mask(); now != own {
			t.Errorf("the caller's mask is %#x, was %#x", now, own)
		}
	}
}

// TestSignalsWhileAChildIsMade sends a signal for which the program has a handler
// to all of the process group, all the time. A child ends by itself or by the
// signal; it never runs the handler, on a stack and with a g that are not the
// runtime's.
func TestSignalsWhileAChildIsMade(t *testing.T) {
	lwptest.NotEmulated(t, "signals at that rate")
	if lwptest.MustPass(t, func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }) {
		return
	}
	begin(t)
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGUSR1)
	defer signal.Reset(unix.SIGUSR1)
	var stop atomic.Bool
	var sender sync.WaitGroup
	sender.Go(func() {
		for !stop.Load() {
			unix.Kill(0, unix.SIGUSR1)
			select {
			case <-got:
			default:
			}
		}
	})
	n, came := lwptest.Count(4000, 400), 0
	for _, flags := range []lwp.Flags{lwp.CloneVM | lwp.CloneVfork, lwp.CloneVM, 0} {
		if flags == 0 {
			n /= 10
		}
		killed := 0 // when the mask opens, if not before
		for i := range n {
			p, err := lwp.StartProcess(dawdle, new(int), lwp.ProcessAttr{Flags: flags})
			if err != nil {
				t.Fatal(err)
			}
			s, err := p.Wait()
			switch {
			case err == nil && s.ExitCode() == 7:
			case err == nil && s.Signal() == unix.SIGUSR1:
				killed++
			default:
				t.Fatalf("child %d with %v: %v, %v", i, flags, s, err)
			}
		}
		t.Logf("%v: the signal has ended %d of %d", flags, killed, n)
		came += killed
	}
	if came == 0 && runtime.GOMAXPROCS(0) > 1 { // on one CPU the sender waits while a child is made
		t.Error("no signal has come to any child")
	}
	stop.Store(true)
	sender.Wait()
	noChildren(t)
}

// faulting makes children that fault, of every kind and where the caller is.
func faulting(m *maskTrial) {
	for _, flags := range []lwp.Flags{0, lwp.CloneVM, lwp.CloneVfork, lwp.CloneVM | lwp.CloneVfork} {
		for _, fn := range [...]func(*int) int{derefNil, sink} {
			p, err := lwp.StartProcess(fn, &m.bad, lwp.ProcessAttr{Flags: flags})
			if err != nil {
				m.want++
				continue
			}
			if s, err := p.Wait(); err != nil || s.Signal() != unix.SIGSEGV {
				m.want++
			}
		}
	}
}

// sink is a child whose stack ends.
func sink(n *int) int {
	if n == nil {
		return 0
	}
	var frame [256]int
	frame[*n&255] = *n
	return sink(&frame[*n&255]) + frame[7]
}

// A thread's signal stack is in the mapping of its stack.
type signalStack struct {
	sp, _, size uintptr
	here        uintptr
	n           int
}

func lookAndSink(s *signalStack) {
	unix.RawSyscall(unix.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(s)), 0)
	var here int
	s.here = lwptest.Addr(&here)
	s.n = sink(&s.n)
}

// TestFaultsOnTheMakersSignalStack has children report a fault, also one that
// needs another stack, where they have their maker's or its copy for that; what
// they ran on is good for threads afterwards.
func TestFaultsOnTheMakersSignalStack(t *testing.T) {
	lwptest.NeedClone(t, unix.CLONE_VM)
	if !lwptest.InChild() {
		lwptest.SkipRace(t)
		out, state := lwptest.Child(t, nil)
		null, over := strings.Count(out, "nil dereference"), strings.Count(out, "stack overflow")
		if !state.Success() || null != 8 || over < 8 {
			t.Errorf("%v; %d reports of 8, and %d of 8 of an overflow:\n%s", state, null, over, out)
		}
		return
	}
	m := new(maskTrial)
	faulting(m)
	lwptest.OnThread(t, faulting, m)
	if m.want != 0 {
		t.Errorf("%d children have not ended as they should", m.want)
	}
	for range 20 {
		s := new(signalStack)
		th := start(t, lookAndSink, s)
		if err, ok := th.Join().(*lwp.Fault); !ok || err.Reason != lwp.StackOverflow {
			t.Fatalf("a thread on a stack that was a child's: %v", err)
		}
		if s.sp > s.here || s.here-s.sp > 1<<20 {
			t.Fatalf("the signal stack of a thread is at %#x, its stack at %#x", s.sp, s.here)
		}
	}
}

// dawdle takes its time to end.
func dawdle(*int) int {
	for range 100 {
		asm.Relax()
	}
	return 7
}
