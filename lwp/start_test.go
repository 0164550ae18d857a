package lwp_test

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestStartRefusedUnderRace(t *testing.T) {
	th, err := lwp.Start(come, new(stage))
	if err == nil {
		join(t, th)
	}
	if !raceEnabled {
		want(t, "Start", err, nil)
		return
	}
	want(t, "Start", err, lwp.ErrRace)
	if th != (lwp.Thread{}) {
		t.Error("a handle comes with the error")
	}
	_, err = lwp.NewPool(lwp.PoolConfig{})
	want(t, "NewPool", err, lwp.ErrRace)
}

// TestUnsupportedRuntimeIsNamed uses the package for the first time in a program
// whose runtime is not as it assumes.
func TestUnsupportedRuntimeIsNamed(t *testing.T) {
	if raceEnabled {
		t.Skip(lwp.ErrRace)
	}
	if lwptest.MustPass(t, nil) {
		return
	}
	lwp.SetForeignRuntime("g has moved")
	for range 3 {
		th, err := lwp.Start(come, new(stage))
		_, err2 := lwp.NewPool(lwp.PoolConfig{})
		for _, err := range []error{err, err2} {
			var e *lwp.UnsupportedError
			if !errors.As(err, &e) || e.Release != runtime.Version() || e.Why != "g has moved" ||
				!strings.Contains(err.Error(), runtime.Version()) || !strings.Contains(err.Error(), "g has moved") {
				t.Errorf("%v", err)
			}
		}
		if th != (lwp.Thread{}) {
			t.Error("a handle comes with the error")
		}
	}
	if n := len(lwp.Threads()); n != 0 {
		t.Errorf("%d threads", n)
	}
}

func TestThreadIsWhatItsHandleSays(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	for range 100 {
		s := new(stage)
		th := start(t, stay, s)
		s.up.Wait()
		tid := int(s.tid.Load())
		if s.self != th {
			t.Fatalf("Self is %v on the thread, the handle is %v", s.self, th)
		}
		if got := th.TID(); got != tid || tid == os.Getpid() {
			t.Fatalf("TID %d, gettid %d, PID %d", got, tid, os.Getpid())
		}
		if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(tid)); err != nil && !lwptest.Emulated() {
			t.Fatal("not a task of this process: ", err)
		}
		s.leave.Raise()
		gone(t, tid)
		if got := th.TID(); got != tid {
			t.Fatalf("TID %d after the end, was %d", got, tid)
		}
		join(t, th)
		if s.n.Load() != 1 {
			t.Fatalf("the function ran %d times", s.n.Load())
		}
		if got := th.TID(); got != 0 {
			t.Fatalf("TID %d after the join", got)
		}
	}
	if lwp.Self() != (lwp.Thread{}) {
		t.Error("a goroutine has a Self")
	}
}

func (s *stage) method(n *atomic.Int64) { n.Add(s.n.Load()) }
func store10(n *atomic.Int64)           { n.Add(10) }
func add[T ~int64](p *T)                { *p += 5 }

// TestEveryKindOfFunc starts functions whose values the compiler lays out
// differently.
func TestEveryKindOfFunc(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	n := new(atomic.Int64)
	s := new(stage)
	s.n.Store(100)
	captured := int64(1000)
	big := [64]int64{63: 10000}
	for range 20 {
		n.Store(0)
		lwptest.OnThread(t, func(n *atomic.Int64) { n.Add(1) }, n)
		lwptest.OnThread(t, store10, n)
		lwptest.OnThread(t, s.method, n)
		lwptest.OnThread(t, func(n *atomic.Int64) { n.Add(captured) }, n)
		lwptest.OnThread(t, func(n *atomic.Int64) { n.Add(big[63]) }, n)
		if got := n.Load(); got != 11111 {
			t.Fatalf("sum %d", got)
		}
	}
	type number int64
	v := new(number)
	lwptest.OnThread(t, add[number], v)
	if *v != 5 {
		t.Errorf("generic function: %d", *v)
	}
	missing := new(atomic.Bool)
	lwptest.OnThread(t, func(p *int) { missing.Store(p == nil) }, nil)
	if !missing.Load() {
		t.Error("nil arrives as something else")
	}
	lwptest.OnThread(t, func(*struct{}) { missing.Store(false) }, new(struct{}))
	if missing.Load() {
		t.Error("a function of an empty struct did not run")
	}
}

// tree is for threads that start threads: the arguments are package variables,
// as they must be.
var tree struct {
	node  [1 << 7]node
	wrong atomic.Uint32
	ran   atomic.Int32
}

type node struct{ index int }

// grow is node's thread: it starts two more, and joins or detaches them.
func grow(n *node) {
	tree.ran.Add(1)
	for i := 2 * n.index; i <= 2*n.index+1 && i < len(tree.node); i++ {
		tree.node[i].index = i
		if i%3 == 0 {
			attr := lwp.Attr{Detached: true, StackSize: 64 << 10}
			if _, err := lwp.StartAttr(grow, &tree.node[i], attr); err != nil {
				tree.wrong.Store(uint32(lwptest.CodeOf(err)))
			}
			continue
		}
		th, err := lwp.Start(grow, &tree.node[i])
		if err != nil {
			tree.wrong.Store(uint32(lwptest.CodeOf(err)))
			continue
		}
		if err := th.Join(); err != nil {
			tree.wrong.Store(uint32(lwptest.CodeOf(err)))
		}
		if err := th.Join(); err != lwp.ErrJoined {
			tree.wrong.Store(uint32(lwptest.Unknown))
		}
	}
}

func TestThreadsStartThreads(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	for range lwptest.Count(50, 10) {
		tree.ran.Store(0)
		tree.node[1].index = 1
		lwptest.OnThread(t, grow, &tree.node[1])
		// Both: a listing can miss a thread whose starter ends while it is made.
		lwptest.Eventually(t, "all threads to run and end", func() bool {
			return int(tree.ran.Load()) == len(tree.node)-1 && len(lwp.Threads()) == 0
		})
		if w := lwptest.Code(tree.wrong.Load()); w != 0 {
			t.Fatal("on a thread: ", w)
		}
	}
}

var listed struct {
	room      [16]lwp.Thread
	n         int
	cap       int
	foundSelf bool
}

func TestThreadsListsThoseThatLive(t *testing.T) {
	begin(t)
	if got := lwp.Threads(); len(got) != 0 {
		t.Fatalf("%d threads before any is started", len(got))
	}
	var stages [5]stage
	handles := map[lwp.Thread]bool{}
	for i := range stages {
		handles[start(t, stay, &stages[i])] = true
	}
	check := func(n int) {
		t.Helper()
		got := lwp.Threads()
		if len(got) != n {
			t.Errorf("%d threads, want %d", len(got), n)
		}
		for _, th := range got {
			if !handles[th] {
				t.Errorf("%v is none of those that were started", th)
			}
			if th.TID() == 0 {
				t.Errorf("%v has no TID", th)
			}
		}
	}
	check(5)
	if got := lwp.AppendThreads(make([]lwp.Thread, 2, 3)); len(got) != 7 {
		t.Errorf("appended to two threads: %d, want 7", len(got))
	}
	lwptest.OnThread(t, func(*int) {
		got := lwp.AppendThreads(listed.room[:0])
		listed.n, listed.cap = len(got), cap(got)
		for _, th := range got {
			listed.foundSelf = listed.foundSelf || th == lwp.Self()
		}
	}, nil)
	if listed.n != 6 || listed.cap != len(listed.room) || !listed.foundSelf {
		t.Errorf("a thread sees %d threads, itself among them: %v; want 6", listed.n, listed.foundSelf)
	}
	for i := range stages {
		stages[i].leave.Raise()
	}
	for th := range handles {
		gone(t, th.TID())
	}
	check(0) // not joined, but they do not live
	for th := range handles {
		join(t, th)
	}
}

func TestNameIsTheKernelsToo(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "names in /proc")
	for _, name := range []string{"a", "fifteen bytes!!", "ünï", "with space"} {
		s := new(stage)
		th := startAttr(t, stay, s, lwp.Attr{Name: name})
		s.up.Wait()
		if got := th.Name(); got != name {
			t.Errorf("Name is %q, want %q", got, name)
		}
		if got := readTrim(t, "/proc/self/task/"+strconv.Itoa(th.TID())+"/comm"); got != name {
			t.Errorf("the kernel calls it %q, want %q", got, name)
		}
		s.leave.Raise()
		join(t, th)
		if got := th.Name(); got != "" {
			t.Errorf("the name is %q after the join", got)
		}
	}
	// A record that is used again must not hand on the name.
	s := new(stage)
	th := start(t, stay, s)
	s.up.Wait()
	if got := th.Name(); got != "" {
		t.Errorf("a thread without a name is called %q", got)
	}
	s.leave.Raise()
	join(t, th)
}

func TestSleepLastsAsLongAsItSays(t *testing.T) {
	begin(t)
	for _, d := range []time.Duration{20 * time.Millisecond, 0, -time.Hour} {
		took := new(int64)
		lwptest.OnThread(t, func(took *int64) {
			began := futex.Monotonic()
			lwp.Sleep(d)
			lwp.Yield()
			*took = futex.Monotonic() - began
		}, took)
		if got := time.Duration(*took); got < max(d, 0) || got > max(d, 0)+30*time.Second {
			t.Errorf("a sleep of %v took %v", d, got)
		}
	}
	// On a goroutine as on a thread.
	began := time.Now()
	lwp.Sleep(5 * time.Millisecond)
	lwp.Yield()
	if d := time.Since(began); d < 5*time.Millisecond {
		t.Errorf("a goroutine's sleep of 5 ms took %v", d)
	}
}

func TestRecordsAreWholeCacheLines(t *testing.T) {
	if lwp.RecordSize%64 != 0 {
		t.Errorf("a record is %d bytes: two threads write to one cache line", lwp.RecordSize)
	}
}
