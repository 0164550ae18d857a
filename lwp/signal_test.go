package lwp_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// fullMask is what a thread must find its signal mask to be: all but faults. qemu-user keeps
// the last two signals to itself.
func fullMask() uint64 {
	if lwptest.Emulated() {
		return lwptest.ThreadMask &^ (3 << 62)
	}
	return lwptest.ThreadMask
}

// A witness is what threads leave that look for signals of their own. It counts,
// so that many can share one.
type witness struct {
	mask        uint64 // what is expected
	masks       atomic.Int64
	interrupted atomic.Int64
	ran         atomic.Int64
}

// look checks the mask at both ends of a wait that a signal handler would
// interrupt.
func look(w *witness) {
	if lwptest.Mask() != w.mask {
		w.masks.Add(1)
	}
	ts := unix.Timespec{Nsec: 300_000}
	_, _, errno := unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		w.interrupted.Add(1)
	}
	if lwptest.Mask() != w.mask {
		w.masks.Add(1)
	}
	w.ran.Add(1)
}

// TestNoSignalReachesThreads floods a process with signals, of itself, of a
// timer, of children and of the profiler, while threads come and go. One signal
// on a thread would be the end of the process: Go's handler finds no m there.
func TestNoSignalReachesThreads(t *testing.T) {
	lwptest.SkipRace(t)
	if lwptest.MustPass(t, nil) {
		return
	}
	begin(t)

	notify := func(s os.Signal) chan os.Signal {
		c := make(chan os.Signal, 1<<12)
		signal.Notify(c, s)
		t.Cleanup(func() { signal.Stop(c) })
		return c
	}
	usr1, usr2 := notify(unix.SIGUSR1), notify(unix.SIGUSR2)
	urg, alarm, child := notify(unix.SIGURG), notify(unix.SIGALRM), notify(unix.SIGCHLD)

	var profile bytes.Buffer
	if err := pprof.StartCPUProfile(&profile); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{
		Interval: unix.Timeval{Usec: 500}, Value: unix.Timeval{Usec: 500},
	}); err != nil {
		t.Fatal(err)
	}

	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(f func()) {
		wg.Go(func() {
			for {
				f() // once at least, however late this is
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	pid := os.Getpid()
	loop(func() {
		for _, s := range []unix.Signal{unix.SIGURG, unix.SIGCHLD, unix.SIGUSR1, unix.SIGALRM} {
			if err := unix.Kill(pid, s); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(20 * time.Microsecond)
	})
	var runs atomic.Int64
	if name, err := exec.LookPath("true"); err != nil {
		t.Log("no os/exec in the loop: ", err)
		runs.Add(1)
	} else {
		loop(func() {
			if err := exec.Command(name).Run(); err != nil {
				t.Error(err)
			}
			runs.Add(1)
		})
	}
	w := &witness{mask: fullMask()}
	pool := newPool(t, lwp.PoolConfig{})
	for i := range 4 {
		loop(func() {
			attr := lwp.Attr{Detached: i == 1}
			if i == 2 {
				attr = lwp.Attr{Pool: pool}
			}
			th, err := lwp.StartAttr(look, w, attr)
			if err != nil {
				t.Error(err)
			} else if !attr.Detached {
				want(t, "Join", th.Join(), nil)
			} else {
				time.Sleep(100 * time.Microsecond)
			}
		})
	}

	// One signal that nobody else sends: every one of them must arrive before
	// the next is sent, as equal signals that wait are one.
	sent := 0
	began := time.Now()
	long := func() bool {
		d := time.Since(began)
		// The profiler's signals come with the CPU time of Go's threads.
		return d > time.Duration(lwptest.Count(3000, 1000))*time.Millisecond && cpuTime(t) > time.Second || d > time.Minute
	}
	for ; !long(); sent++ {
		unix.Kill(pid, unix.SIGUSR2)
		select {
		case <-usr2:
		case <-time.After(time.Minute):
			t.Fatal("a signal has not arrived: ", sent)
		}
	}
	close(stop)
	wg.Wait()
	if _, err := unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{}); err != nil {
		t.Error(err)
	}
	pprof.StopCPUProfile()
	closePool(t, pool)
	lwptest.Eventually(t, "detached threads to end", func() bool { return len(lwp.Threads()) == 0 })

	if w.masks.Load() != 0 || w.interrupted.Load() != 0 {
		t.Errorf("%d masks were open, %d waits were interrupted", w.masks.Load(), w.interrupted.Load())
	}
	for name, n := range map[string]int{
		"threads": int(w.ran.Load()), "children": int(runs.Load()), "SIGUSR2": sent,
		"SIGUSR1": len(usr1), "SIGURG": len(urg), "SIGALRM": len(alarm), "SIGCHLD": len(child),
	} {
		if n == 0 {
			t.Errorf("no %s: the test has seen nothing", name)
		}
		t.Logf("%s: %d", name, n)
	}
	if len(usr2) != 0 {
		t.Errorf("%d signals more than were sent", len(usr2))
	}
	z, err := gzip.NewReader(&profile)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(z)
	if !bytes.Contains(text, []byte("runtime.")) && !lwptest.Emulated() {
		t.Error("the profile has no samples")
	}
}

// cpuTime returns the CPU time of the process.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSignalSentToThreadStaysPending sends signals to a thread by its TID, where
// none but faults and the two that cannot be blocked may ever arrive.
func TestSignalSentToThreadStaysPending(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "masks in /proc")
	got := make(chan os.Signal, 10)
	signal.Notify(got, unix.SIGUSR1, unix.SIGTERM, unix.SIGALRM, unix.SIGHUP)
	defer signal.Stop(got)
	th, s := stays(t, lwp.Attr{})
	dir := "/proc/self/task/" + strconv.Itoa(th.TID())
	pending := uint64(0)
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGTERM, unix.SIGALRM, unix.SIGPROF, unix.SIGHUP} {
		if err := unix.Tgkill(os.Getpid(), th.TID(), sig); err != nil {
			t.Fatal(err)
		}
		pending |= 1 << (sig - 1)
	}
	if mask, err := lwptest.SignalMask(dir); err != nil || mask != lwptest.ThreadMask {
		t.Errorf("mask %#x, %v", mask, err)
	}
	line := fmt.Sprintf("SigPnd:\t%016x\n", pending)
	if status := readTrim(t, dir+"/status"); !strings.Contains(status, line) {
		t.Errorf("no %q in\n%s", line, status)
	}
	s.leave.Raise()
	join(t, th)
	select {
	case sig := <-got:
		t.Errorf("%v has reached a handler", sig)
	case <-time.After(20 * time.Millisecond):
	}
}
