package lwp_test

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// spareThreads has the Go runtime make the threads that it may want later: a
// process at its limit in which Go wants one more is at its end.
func spareThreads() {
	var wg sync.WaitGroup
	release := make(chan struct{})
	for range 24 {
		wg.Add(1)
		go func() {
			runtime.LockOSThread() // a thread for each
			defer runtime.UnlockOSThread()
			wg.Done()
			<-release
		}()
	}
	wg.Wait()
	close(release)
}

// spareHeap has the Go runtime map what the test may need later, the structures
// that describe small objects included: a process at its limit whose Go heap
// wants more is at its end. Where in its first arena the heap begins differs
// from run to run, and it can be near the end.
func spareHeap() {
	keep := make([][]byte, 0, 32<<10)
	for i := range cap(keep) {
		keep = append(keep, make([]byte, 8<<(i%9)))
	}
	runtime.KeepAlive(keep)
	runtime.GC()
}

// fillUp starts threads until one is refused, and returns them with the refusal.
func fillUp(t *testing.T, all *crew, attr lwp.Attr, most int) ([]lwp.Thread, error) {
	t.Helper()
	var threads []lwp.Thread
	for range most {
		th, err := lwp.StartAttr(assemble, all, attr)
		if err != nil {
			if th != (lwp.Thread{}) {
				t.Error("a handle comes with the error")
			}
			return threads, err
		}
		threads = append(threads, th)
	}
	t.Fatalf("%d threads started, and the limit was not reached", most)
	return nil, nil
}

// atLimit fills up to a limit, time and again, and checks that the refusals are
// what they should be, leave nothing behind, and are over when threads have ended.
func atLimit(t *testing.T, op []string, errno syscall.Errno, attr lwp.Attr, most int) {
	t.Helper()
	rounds := lwptest.Count(10, 3)
	held := 0
	for round := range rounds {
		all := new(crew)
		threads, err := fillUp(t, all, attr, most)
		check := func(err error) {
			t.Helper()
			var e *lwp.Error
			if !errors.As(err, &e) || e.Errno != errno || !errors.Is(err, errno) || !strings.Contains(strings.Join(op, " "), e.Op) {
				t.Fatalf("round %d: %v, want %v: %v", round, err, op, errno)
			}
		}
		check(err)
		if len(threads) < 10 {
			t.Fatalf("round %d: only %d threads", round, len(threads))
		}
		// The first PIDs of a PID namespace are used only once, so that the
		// first round can be the largest. And the system makes some noise.
		if round == 1 {
			held = len(threads)
			t.Logf("%d threads, then: %v", held, err)
		}
		if len(threads) < held-5 {
			t.Errorf("round %d: %d threads, in the second round %d", round, len(threads), held)
		}
		for range 200 {
			detached := attr
			detached.Detached = true
			_, err := lwp.StartAttr(assemble, all, detached)
			check(err)
		}
		// One less is room for one.
		all.leave.Raise()
		for _, th := range threads {
			join(t, th)
		}
		if int(all.left.Load()) != len(threads) {
			t.Fatalf("%d of %d threads ran", all.left.Load(), len(threads))
		}
		join(t, startAttr(t, come, new(stage), attr))
	}
}

func TestTooManyProcesses(t *testing.T) {
	lwptest.SkipRace(t)
	if lwptest.MustPass(t, nil) {
		return
	}
	debug.SetGCPercent(-1)
	if os.Geteuid() == 0 {
		// A user without other processes; root's number is not limited.
		const user = 2_000_000_019
		if err := syscall.Setresgid(user, user, user); err != nil {
			t.Skip("cannot become another user: ", err)
		}
		if err := syscall.Setresuid(user, user, user); err != nil {
			t.Skip("cannot become another user: ", err)
		}
		unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}
	spareThreads()
	begin(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(min(tasksOfUser(t)+60, int(min(old.Max, math.MaxInt32))))
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		t.Fatal(err)
	}
	atLimit(t, []string{"clone"}, unix.EAGAIN, lwp.Attr{}, 1000)
	_, err := fillNothing(&limit, t)
	if !strings.Contains(err.Error(), "RLIMIT_NPROC") {
		t.Errorf("the error names no limit: %v", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &old); err != nil {
		t.Fatal(err)
	}
	join(t, start(t, come, new(stage)))
}

// fillNothing starts a thread where not one is allowed.
func fillNothing(limit *unix.Rlimit, t *testing.T) (lwp.Thread, error) {
	t.Helper()
	limit.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, limit); err != nil {
		t.Fatal(err)
	}
	th, err := lwp.Start(come, new(stage))
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("Start: %v, want EAGAIN", err)
	}
	return th, err
}

// tasksOfUser counts the tasks that the limit counts.
func tasksOfUser(t *testing.T) int {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range dirs {
		info, err := d.Info()
		if _, notPID := strconv.Atoi(d.Name()); err != nil || notPID != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Getuid() {
			tasks, _ := os.ReadDir("/proc/" + d.Name() + "/task")
			n += len(tasks)
		}
	}
	return n
}

// TestNoMorePIDs runs out of PIDs in a PID namespace that has few.
func TestNoMorePIDs(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "PID namespaces")
	lwptest.NeedRoot(t)
	lwptest.NeedCap(t, unix.CAP_SYS_ADMIN)
	const file = "/proc/sys/kernel/pid_max"
	if !lwptest.InChild() {
		if !since(6, 14) {
			t.Skip("kernel.pid_max is not the PID namespace's own before Linux 6.14")
		}
		before := readTrim(t, file)
		lwptest.MustPass(t, func(c *exec.Cmd) {
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
		})
		if after := readTrim(t, file); after != before {
			t.Errorf("pid_max is %s now, was %s", after, before)
		}
		return
	}
	if os.Getpid() > 10 {
		t.Skip("not in a PID namespace of its own")
	}
	// /proc must be the namespace's, for the leak check as for pid_max.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skip("mount: ", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Skip("mount: ", err)
	}
	debug.SetGCPercent(-1)
	spareThreads()
	begin(t)
	if err := os.WriteFile(file, []byte("400"), 0); err != nil {
		t.Skip("pid_max: ", err)
	}
	atLimit(t, []string{"clone"}, unix.EAGAIN, lwp.Attr{}, 1000)
}

// since reports whether the kernel is of that release or later.
func since(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	part := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	if len(part) < 2 {
		return false
	}
	a, _ := strconv.Atoi(part[0])
	b, _ := strconv.Atoi(strings.TrimFunc(part[1], func(r rune) bool { return r < '0' || r > '9' }))
	return a > major || a == major && b >= minor
}

func TestNoMoreAddressSpace(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "RLIMIT_AS")
	if lwptest.MustPass(t, nil) {
		return
	}
	debug.SetGCPercent(-1)
	spareThreads()
	spareHeap()
	begin(t)
	statm := strings.Fields(readTrim(t, "/proc/self/statm"))
	pages, err := strconv.Atoi(statm[0])
	if err != nil {
		t.Fatal(err)
	}
	// Room for two hundred stacks, and for Go's heap to need some of it.
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: uint64(pages*os.Getpagesize()) + 200<<20, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_AS, &old)
	atLimit(t, []string{"mmap", "mprotect"}, unix.ENOMEM, lwp.Attr{StackSize: 1 << 20}, 1000)
	for range 1000 {
		_, err := lwp.StartAttr(come, new(stage), lwp.Attr{StackSize: lwp.MaxStackSize})
		want(t, "a stack of 1 GiB", err, unix.ENOMEM)
	}
	join(t, start(t, come, new(stage)))
}
