package lwp_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// begins is begin for tests of AllThreadsSyscall.
func beginsAll(t *testing.T) {
	t.Helper()
	begin(t)
	if _, err := lwp.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("cgo is in the program: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// fields returns what /proc says in a line of each task of this process.
func fields(t testing.TB, name string) map[string]int {
	t.Helper()
	got := map[string]int{}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), "\n"+name+":\t")
		v, _, _ := strings.Cut(rest, "\n")
		got[v]++
	}
	return got
}

// TestCredentialsChangeOnEveryThread changes the user of a program whose
// threads sleep, spin, wait and are parked, with a process of CLONE_THREAD
// among them.
func TestCredentialsChangeOnEveryThread(t *testing.T) {
	if !lwptest.InChild() {
		lwptest.NotEmulated(t, "its own credentials in /proc")
		lwptest.NeedRoot(t)
	}
	if lwptest.MustPass(t, nil) {
		return
	}
	beginsAll(t)
	all := new(crew)
	var threads []lwp.Thread
	for range 8 {
		threads = append(threads, start(t, assemble, all))
	}
	var s spinner
	threads = append(threads, start(t, spin, &s), start(t, func(s *spinner) {
		for !s.stop.Load() {
			lwp.Sleep(time.Hour / 3600 / 50)
		}
	}, &s))
	pool, err := lwp.NewPool(lwp.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	join(t, startAttr(t, count, new(atomic.Int64), lwp.Attr{Pool: pool}))
	p, sc := lingers(t, lwp.ProcessAttr{Flags: lwp.CloneVM | lwp.CloneSighand | lwp.CloneThread | lwp.CloneFS | lwp.CloneFiles | lwp.CloneSysvsem})
	lwptest.Eventually(t, "all to come", func() bool { return all.came.Load() == 8 })

	before := fields(t, "Uid")
	if len(before) != 1 || before["0\t0\t0\t0"] == 0 {
		t.Fatalf("users at first: %v", before)
	}
	if _, err := lwp.AllThreadsSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); err != nil {
		t.Fatal(err)
	}
	if got := fields(t, "Uid"); len(got) != 1 || got["0\t65534\t0\t65534"] < 12 {
		t.Errorf("users afterwards: %v", got)
	}
	// One that is started now has it too.
	th := start(t, assemble, all)
	if got := fields(t, "Uid"); len(got) != 1 {
		t.Errorf("users with a new thread: %v", got)
	}
	if _, err := lwp.AllThreadsSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); err != nil {
		t.Fatal(err)
	}
	if got := fields(t, "Uid"); len(got) != 1 || got["0\t0\t0\t0"] < 12 {
		t.Errorf("users back again: %v", got)
	}
	s.stop.Store(true)
	all.leave.Raise()
	sc.dismiss(t, p)
	for _, th := range append(threads, th) {
		join(t, th)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}

// TestAllThreadsSyscallWhileThreadsComeAndGo looks, on each thread, at what the
// last call has set: no thread may have missed one, or made one twice.
func TestAllThreadsSyscallWhileThreadsComeAndGo(t *testing.T) {
	if lwptest.MustPass(t, nil) {
		return
	}
	beginsAll(t)
	var stop atomic.Bool
	wrong := new(atomic.Int64)
	ended := make(chan int)
	for range 2 {
		go func() {
			n := 0
			for !stop.Load() {
				th, err := lwp.Start(dumpable, wrong)
				if err != nil {
					t.Error(err)
					break
				}
				th.Join()
				n++
			}
			ended <- n
		}()
	}
	var s spinner
	starter := start(t, func(s *spinner) { // one that starts threads itself
		for !s.stop.Load() {
			th, err := lwp.Start(func(s *spinner) { s.n.Add(1) }, s)
			if err == nil {
				th.Join()
			}
		}
	}, &s)
	for i := range lwptest.Count(300, 50) {
		want := uintptr(i % 2)
		if _, err := lwp.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, want, 0); err != nil {
			t.Fatal(err)
		}
		// Agreement of all is what the call itself checks.
		if r, err := lwp.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_GET_KEEPCAPS, 0, 0); err != nil || r != want {
			t.Fatalf("round %d: %d, %v", i, r, err)
		}
	}
	stop.Store(true)
	t.Logf("%d and %d threads came and went, %d by a thread", <-ended, <-ended, s.n.Load())
	s.stop.Store(true)
	join(t, starter)
}

func dumpable(n *atomic.Int64) { n.Add(1) }

func TestAllThreadsSyscallThatFailsIsMadeOnNone(t *testing.T) {
	beginsAll(t)
	th, s := stays(t, lwp.Attr{})
	if _, err := lwp.AllThreadsSyscall(unix.SYS_PRCTL, 9999, 0, 0); err != unix.EINVAL {
		t.Errorf("got %v", err)
	}
	want(t, "TryJoin", th.TryJoin(), lwp.ErrRunning)
	s.leave.Raise()
	join(t, th)
}

func TestThreadsThatDisagreeAreNamed(t *testing.T) {
	if lwptest.MustPass(t, nil) {
		return
	}
	beginsAll(t)
	st := new(stage)
	th := start(t, func(s *stage) {
		unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
		stay(s)
	}, st)
	st.up.Wait()
	_, err := lwp.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_GET_KEEPCAPS, 0, 0)
	var te *lwp.ThreadsError
	if !errors.As(err, &te) || len(te.Threads) != 1 || te.Threads[0].TID != th.TID() || te.Threads[0].Result != 1 ||
		!strings.Contains(err.Error(), fmt.Sprint("1 on thread ", th.TID())) {
		t.Errorf("got %v", err)
	}
	st.leave.Raise()
	join(t, th)
}

// TestThreadThatCannotBeReachedIsAnError: one with the signal blocked. Nothing
// has been done then, and the next call, when it is reachable again, works.
func TestThreadThatCannotBeReachedIsAnError(t *testing.T) {
	beginsAll(t)
	defer lwp.SetGatherPatience(lwp.SetGatherPatience(20 * time.Millisecond))
	deaf := new(deafStage)
	th := start(t, func(s *deafStage) {
		all, ours := ^uint64(0), lwptest.ThreadMask
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
		s.up.Raise()
		for !s.hear.Up() {
			lwp.Sleep(time.Millisecond)
		}
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&ours)), 0, 8, 0, 0)
		s.heard.Raise()
		s.leave.Wait()
	}, deaf)
	other, o := stays(t, lwp.Attr{})
	deaf.up.Wait()
	for range 2 {
		if _, err := lwp.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0); err != lwp.ErrUnreached {
			t.Fatalf("got %v", err)
		}
	}
	if r, _, _ := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_KEEPCAPS, 0, 0); r != 0 {
		t.Error("the call was made")
	}
	deaf.hear.Raise()
	deaf.heard.Wait()
	lwp.SetGatherPatience(10 * time.Second)
	if _, err := lwp.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0); err != nil {
		t.Error(err)
	}
	deaf.leave.Raise()
	o.leave.Raise()
	join(t, th)
	join(t, other)
}

type deafStage struct {
	up, hear, heard, leave lwptest.Flag
}

func TestAllThreadsSyscallIsHosted(t *testing.T) {
	begin(t)
	var code lwptest.Code
	lwptest.OnThread(t, func(c *lwptest.Code) {
		_, err := lwp.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
		*c = lwptest.CodeOf(err)
	}, &code)
	if code != lwptest.CodeOf(lwp.ErrHosted) {
		t.Errorf("got %v", code)
	}
}
