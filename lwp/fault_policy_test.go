package lwp_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

// events is what happened, in order, one byte an event.
type events struct {
	seen  [64]byte
	n     atomic.Int32
	errno lwptest.Code
	child lwp.Thread
}

var happened *events

func faultNote(what byte) {
	if n := happened.n.Add(1) - 1; n < 64 {
		happened.seen[n] = what
	}
}

func (e *events) String() string { return string(e.seen[:min(64, e.n.Load())]) }

// watch makes happened empty.
func watch() { happened = new(events) }

func boom(*events)         { deaths[0](&quiet) }
func boomHook(*events)     { faultNote('h'); deaths[0](&quiet) }
func fineHook(*events)     { faultNote('H') }
func faultAgain(e *events) { faultNote('a'); lwp.OnExit(faultAgain, e); deaths[0](&quiet) }
func abortAgain(e *events) {
	faultNote('A')
	lwp.OnExit(abortAgain, e)
	lwp.Abort("again")
}

var quiet storm

func TestOnFaultComesFirst(t *testing.T) {
	lwptest.SkipRace(t)
	watch()
	key, err := tls.NewKey(func(*int) { faultNote('d') })
	if err != nil {
		t.Fatal(err)
	}
	defer key.Delete()
	faultHookKey = key
	f := fault(t, func(e *events) {
		faultHookKey.Set(1)
		lwp.OnExit(fineHook, e)
		deaths[7](&quiet)
	}, happened, lwp.Attr{OnFault: func(f *lwp.Fault) {
		faultNote('f')
		if f.Reason == lwp.BadAddress && f.Addr == 0x7654321000 && f.TID == lwp.Self().TID() {
			faultNote('!')
		}
	}})
	if got := happened.String(); got != "f!dH" {
		t.Errorf("order %q", got)
	}
	if f.Reason != lwp.BadAddress {
		t.Error(f)
	}
}

var faultHookKey tls.Key[int]

// What goes wrong in the teardown neither hides the fault nor stops the rest.
func TestFaultsOfTheTeardown(t *testing.T) {
	lwptest.SkipRace(t)
	for _, c := range []struct {
		name string
		do   func(*events)
		attr lwp.Attr
		want lwp.Reason
		in   string // the function that Error names
		seen string
	}{
		{"hook faults", boom, lwp.Attr{OnFault: func(*lwp.Fault) { faultNote('f'); deaths[0](&quiet) }}, lwp.NilDereference, "fault_storm_test.go", "f"},
		{"hook exits", boom, lwp.Attr{OnFault: func(*lwp.Fault) { faultNote('f'); lwp.Exit() }}, lwp.NilDereference, "fault_storm_test.go", "f"},
		{"hook aborts", boom, lwp.Attr{OnFault: func(*lwp.Fault) { faultNote('f'); lwp.Abort("no") }}, lwp.NilDereference, "fault_storm_test.go", "f"},
		{"hook overflows", boom, lwp.Attr{OnFault: func(*lwp.Fault) { faultNote('f'); quiet.n = deepen(1) }}, lwp.NilDereference, "fault_storm_test.go", "f"},
		{"exit hook faults", func(e *events) {
			lwp.OnExit(fineHook, e)
			lwp.OnExit(boomHook, e)
			lwp.OnExit(fineHook, e)
		}, lwp.Attr{}, lwp.NilDereference, "fault_storm_test.go", "HhH"},
		{"two exit hooks fault", func(e *events) {
			lwp.OnExit(boomHook, e)
			lwp.OnExit(boomHook, e)
			lwp.Abort("first")
		}, lwp.Attr{}, lwp.Explicit, "TestFaultsOfTheTeardown", "hh"},
		{"exit hook faults for ever", func(e *events) { lwp.OnExit(faultAgain, e) }, lwp.Attr{}, lwp.NilDereference, "fault_storm_test.go", strings.Repeat("a", 64)},
		{"exit hook aborts for ever", func(e *events) { lwp.OnExit(abortAgain, e) }, lwp.Attr{}, lwp.Explicit, "abortAgain", strings.Repeat("A", 64)},
		{"Start while dying", func(e *events) {
			lwp.OnExit(func(e *events) {
				var err error
				e.child, err = lwp.Start(fineHook, e)
				e.errno = lwptest.CodeOf(err)
			}, e)
			boom(e)
		}, lwp.Attr{}, lwp.NilDereference, "fault_storm_test.go", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			watch()
			f := fault(t, c.do, happened, c.attr)
			if f.Reason != c.want || !strings.Contains(f.Error(), c.in) {
				t.Errorf("%v, want %v in %s\n%s", f, c.want, c.in, f.Stack())
			}
			if got := happened.String(); got != c.seen {
				t.Errorf("seen %q, want %q", got, c.seen)
			}
			if c.name == "Start while dying" && (happened.errno != lwptest.CodeOf(lwp.ErrExiting) || happened.child != lwp.Thread{}) {
				t.Errorf("Start gave %v and %v", happened.child, happened.errno)
			}
			alive(t)
		})
	}
}

func TestFaultInADestructor(t *testing.T) {
	lwptest.SkipRace(t)
	watch()
	first, err := tls.NewKey(func(*int) { faultNote('1') })
	if err != nil {
		t.Fatal(err)
	}
	defer first.Delete()
	bad, err := tls.NewKey(func(*int) {
		faultNote('b')
		faultHookKey.Set(1) // and again, for ever
		deaths[0](&quiet)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Delete()
	faultHookKey, firstKey = bad, first
	set := func(e *events) {
		firstKey.Set(1)
		faultHookKey.Set(1)
		lwp.OnExit(fineHook, e)
	}
	checkIt := func(f *lwp.Fault) {
		t.Helper()
		if f.Reason != lwp.NilDereference || !strings.Contains(f.Stack(), "TestFaultInADestructor") {
			t.Errorf("%v\n%s", f, f.Stack())
		}
		if strings.Contains(f.Stack(), "RunDestructors") {
			t.Errorf("the stack goes on below the destructor\n%s", f.Stack())
		}
		if happened.String() != "b1bbbH" {
			t.Errorf("seen %q", happened)
		}
	}
	checkIt(fault(t, set, happened, lwp.Attr{}))

	watch()
	pool, err := lwp.NewPool(lwp.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	checkIt(fault(t, set, happened, lwp.Attr{Pool: pool}))
	lwptest.Within(t, "Close of the pool", func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	alive(t)
}

var firstKey tls.Key[int]

func TestFaultsOfPooledRuns(t *testing.T) {
	lwptest.SkipRace(t)
	alive(t)
	leaks(t)
	watch()
	pool, err := lwp.NewPool(lwp.PoolConfig{MaxThreads: 3, MaxIdle: 2, Attr: lwp.Attr{OnFault: func(*lwp.Fault) { faultNote('f') }}})
	if err != nil {
		t.Fatal(err)
	}
	n := lwptest.Count(2000, 200)
	for i := range n {
		f := fault(t, deaths[i%len(deaths)], &storm{depth: 1}, lwp.Attr{Pool: pool})
		if f.Reason == lwp.Unknown {
			t.Fatal(f)
		}
		th, err := lwp.StartAttr(fineHook, happened, lwp.Attr{Pool: pool})
		if err != nil {
			t.Fatal("the run after a fault: ", err)
		}
		if err := th.Join(); err != nil {
			t.Fatal("the run after a fault: ", err)
		}
	}
	if got := int(happened.n.Load()); got != 2*n {
		t.Errorf("%d runs and hooks, want %d", got, 2*n)
	}
	lwptest.Within(t, "Close of the pool", func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFaultLeavesALockHeld(t *testing.T) {
	lwptest.SkipRace(t)
	var mu futex.Mutex
	fault(t, func(mu *futex.Mutex) {
		mu.Lock()
		defer mu.Unlock() // does not run
		panic("with the lock")
	}, &mu, lwp.Attr{})
	if mu.TryLock() {
		t.Error("the lock was released")
	}
	mu.Unlock()
	if !mu.TryLock() {
		t.Error("the lock is of no more use")
	}
}

// The documentation says so; it would be good news if it were no longer true.
func TestFaultInMidWriteSpoilsAMap(t *testing.T) {
	lwptest.SkipRace(t)
	if lwptest.InChild() {
		m := map[int]int{}
		fault(t, func(m *map[int]int) {
			for i := range 100 {
				(*m)[i] = i
			}
		}, &m, lwp.Attr{})
		time.Sleep(20 * time.Millisecond) // the trace of a fatal error wants other goroutines at rest
		m[1] = 1
		return
	}
	out, state := lwptest.Child(t, nil)
	if state.ExitCode() != 2 || !strings.Contains(out, "fatal error: concurrent map writes") {
		t.Errorf("ended with %v and\n%s", state, out)
	}
}

func TestFaultDiesWithTheSignalWhenItIsToCrash(t *testing.T) {
	lwptest.SkipRace(t)
	crash := lwp.Attr{FaultPolicy: lwp.CrashOnFault, Name: "crasher"}
	for name, c := range map[string]struct {
		do     func(*storm)
		attr   lwp.Attr
		signal syscall.Signal
		says   []string
	}{
		"nil":        {deaths[0], crash, unix.SIGSEGV, []string{"(crasher): nil dereference", "fault_storm_test.go:", "address 0x", asm.RegisterNames[0] + " "}},
		"abort":      {deaths[6], crash, unix.SIGABRT, []string{"(crasher): abort: storm", "fault_storm_test.go:"}},
		"allocation": {deaths[3], crash, unix.SIGSEGV, []string{"heap allocation", "runtime.mallocgc", "fault_storm_test.go:"}},
		"hook that faults": {deaths[3], lwp.Attr{FaultPolicy: lwp.CrashOnFault, OnFault: func(*lwp.Fault) { boom(nil) }},
			unix.SIGSEGV, []string{"heap allocation"}},
		"pooled": {deaths[3], lwp.Attr{}, unix.SIGSEGV, []string{"heap allocation", "fault_storm_test.go:"}},
		"thread of a thread": {func(s *storm) {
			th, _ := lwp.StartAttr(deaths[7], s, lwp.Attr{FaultPolicy: lwp.CrashOnFault})
			th.Join()
		}, lwp.Attr{}, unix.SIGSEGV, []string{"bad address", "0x7654321000"}},
	} {
		t.Run(name, func(t *testing.T) {
			if lwptest.InChild() {
				if name == "pooled" {
					pool, err := lwp.NewPool(lwp.PoolConfig{Attr: crash})
					if err != nil {
						t.Fatal(err)
					}
					c.attr.Pool = pool
				}
				unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
				th, err := lwp.StartAttr(c.do, &storm{}, c.attr)
				if err != nil {
					t.Fatal(err)
				}
				t.Fatal("joined: ", th.Join())
			}
			out, state := lwptest.Child(t, nil)
			ws := state.Sys().(syscall.WaitStatus)
			if !ws.Signaled() || ws.Signal() != c.signal {
				t.Errorf("ended with %v, want %v", state, c.signal)
			}
			for _, s := range c.says {
				if !strings.Contains(out, s) {
					t.Errorf("does not say %q", s)
				}
			}
			if strings.Contains(out, "joined") {
				t.Error("the process went on")
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func TestDetachedFaultIsReportedOnce(t *testing.T) {
	lwptest.SkipRace(t)
	for name, c := range map[string]struct {
		attr lwp.Attr
		want int
	}{
		"plain":       {lwp.Attr{Detached: true, Name: "loner"}, 1},
		"with a hook": {lwp.Attr{Detached: true, Name: "loner", OnFault: tell}, 0},
		"pooled":      {lwp.Attr{Detached: true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if lwptest.InChild() {
				if name == "pooled" {
					pool, err := lwp.NewPool(lwp.PoolConfig{})
					if err != nil {
						t.Fatal(err)
					}
					c.attr.Pool = pool
				}
				th, err := lwp.StartAttr(deaths[1], &storm{}, c.attr)
				if err != nil {
					t.Fatal(err)
				}
				lwptest.Eventually(t, "the thread to end", func() bool {
					lwp.Trim()
					return errors.Is(th.Detach(), lwp.ErrDetached) && len(lwp.Threads()) == 0
				})
				for range 10 {
					alive(t)
					lwp.Trim()
				}
				return
			}
			out, state := lwptest.Child(t, nil)
			if !state.Success() {
				t.Fatalf("ended with %v\n%s", state, out)
			}
			if n := strings.Count(out, ": integer division by zero in"); n != c.want {
				t.Errorf("reported %d times, want %d\n%s", n, c.want, out)
			}
		})
	}
}

// Detached runs that die leave nothing behind.
func TestDetachedFaultsOfPooledRuns(t *testing.T) {
	lwptest.SkipRace(t)
	if lwptest.MustPass(t, nil) { // which keeps the reports to itself
		return
	}
	alive(t)
	leaks(t)
	pool, err := lwp.NewPool(lwp.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for range lwptest.Count(40_000, 20_000) { // more bytes of Faults than the leak check lets pass
		if _, err := lwp.StartAttr(deaths[1], &quiet, lwp.Attr{Detached: true, Pool: pool}); err != nil {
			t.Fatal(err)
		}
	}
	lwptest.Within(t, "Close of the pool", func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	lwptest.Eventually(t, "records to be free again", func() bool {
		lwp.Trim()
		return lwp.Records() == 0
	})
}

// Detached threads that die on the smallest stacks are collected by others
// like them, which have no room for a report in Go's terms.
func TestDetachedFaultsReapedByThreads(t *testing.T) {
	lwptest.SkipRace(t)
	if !lwptest.InChild() {
		out, state := lwptest.Child(t, nil)
		if !state.Success() {
			t.Fatalf("ended with %v\n%s", state, out)
		}
		if n := strings.Count(out, ": fault: "); n < 1 {
			t.Errorf("%d faults reported by threads\n%s", n, out)
		}
		return
	}
	leaks(t)
	s := &storm{n: 200}
	lwptest.OnThread(t, func(s *storm) {
		for range s.n {
			if _, err := lwp.StartAttr(deaths[2], s, lwp.Attr{Detached: true, StackSize: lwp.MinStackSize}); err != nil {
				s.wrong.Add(1)
			}
		}
		// Start takes back what has ended, and others like it when they have.
		for range 1000 {
			if lwp.Records() < s.n/2 {
				break
			}
			lwp.Sleep(time.Millisecond)
			lwp.Trim()
		}
	}, s)
	lwptest.Eventually(t, "the threads to end", func() bool {
		lwp.Trim()
		return len(lwp.Threads()) == 0
	})
	if n := s.wrong.Load(); n != 0 {
		t.Errorf("%d threads did not start", n)
	}
	alive(t)
}
