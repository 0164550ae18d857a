package lwp_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

func newPool(t *testing.T, config lwp.PoolConfig) *lwp.Pool {
	t.Helper()
	p, err := lwp.NewPool(config)
	if err != nil {
		t.Fatal("NewPool: ", err)
	}
	return p
}

func closePool(t *testing.T, p *lwp.Pool) {
	t.Helper()
	lwptest.Within(t, "Close", func() { want(t, "Close", p.Close(), nil) })
	// Those that left the pool before can still be on their way out.
	lwptest.Eventually(t, "threads that have left the pool to end", func() bool { return len(lwp.Threads()) == 0 })
}

func TestPoolTakesItsThreadAgain(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	p := newPool(t, lwp.PoolConfig{})
	attr := lwp.Attr{Pool: p}
	first := int32(0)
	var last lwp.Thread
	for i := range lwptest.Count(2000, 300) {
		s := new(stage)
		th := startAttr(t, come, s, attr)
		switch i % 3 { // every way to join leaves the thread ready for the next run
		case 0:
			want(t, "Join", th.Join(), nil)
		case 1:
			want(t, "JoinContext", th.JoinContext(context.Background()), nil)
		case 2:
			for th.TryJoin() == lwp.ErrRunning {
				lwp.Yield()
			}
		}
		if i == 0 {
			first = s.tid.Load()
		}
		if s.n.Load() != 1 || s.self != th {
			t.Fatalf("run %d: ran %d times as %v, the handle is %v", i, s.n.Load(), s.self, th)
		}
		if tid := s.tid.Load(); tid != first || tid == 0 {
			t.Fatalf("run %d on thread %d, want %d again", i, tid, first)
		}
		if th == last {
			t.Fatal("two runs have one handle")
		}
		want(t, "second Join", th.Join(), lwp.ErrJoined)
		want(t, "Join of the run before", last.Join(), map[bool]error{true: lwp.ErrNoThread, false: lwp.ErrJoined}[i == 0])
		last = th
	}
	if n := len(lwp.Threads()); n != 1 {
		t.Errorf("%d threads for one run at a time", n)
	}
	closePool(t, p)
}

func TestPoolRunHasTIDOfItsThread(t *testing.T) {
	begin(t)
	p := newPool(t, lwp.PoolConfig{})
	for range 3 {
		th, s := stays(t, lwp.Attr{Pool: p})
		if tid := th.TID(); tid != int(s.tid.Load()) {
			t.Errorf("TID %d, gettid %d", tid, s.tid.Load())
		}
		s.leave.Raise()
		join(t, th)
	}
	closePool(t, p)
}

func TestPoolIsBounded(t *testing.T) {
	begin(t)
	const most = 3
	p := newPool(t, lwp.PoolConfig{MaxThreads: most})
	attr := lwp.Attr{Pool: p}
	for range 20 {
		var stages [most]stage
		var threads [most]lwp.Thread
		for i := range stages {
			threads[i] = startAttr(t, stay, &stages[i], attr)
		}
		for range 100 {
			th, err := lwp.StartAttr(come, new(stage), attr)
			want(t, "Start on a full pool", err, lwp.ErrPoolFull)
			if th != (lwp.Thread{}) {
				t.Fatal("a handle comes with the error")
			}
		}
		stages[0].leave.Raise()
		join(t, threads[0]) // a thread is free now, without a moment's delay
		join(t, startAttr(t, come, new(stage), attr))
		for i := range most - 1 {
			stages[i+1].leave.Raise()
			join(t, threads[i+1])
		}
	}
	if n := len(lwp.Threads()); n > most {
		t.Errorf("%d threads, at most %d are allowed", n, most)
	}
	closePool(t, p)
}

func TestPoolKeepsNoMoreIdleThanItMay(t *testing.T) {
	begin(t)
	p := newPool(t, lwp.PoolConfig{MaxIdle: 2})
	for range 10 {
		var stages [6]stage
		var threads [6]lwp.Thread
		for i := range stages {
			threads[i] = startAttr(t, stay, &stages[i], lwp.Attr{Pool: p})
		}
		for i := range stages {
			stages[i].leave.Raise()
			join(t, threads[i])
		}
		lwptest.Eventually(t, "surplus threads to end", func() bool { return len(lwp.Threads()) == 2 })
	}
	closePool(t, p)
}

func TestCloseWaitsForRuns(t *testing.T) {
	begin(t)
	p := newPool(t, lwp.PoolConfig{})
	running, s := stays(t, lwp.Attr{Pool: p})
	detached, s2 := stays(t, lwp.Attr{Pool: p, Detached: true})
	join(t, startAttr(t, come, new(stage), lwp.Attr{Pool: p})) // leaves one parked
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	lwptest.Eventually(t, "Start to be refused", func() bool {
		th, err := lwp.StartAttr(come, new(stage), lwp.Attr{Pool: p})
		if err == nil {
			join(t, th)
		}
		return err == lwp.ErrPoolClosed
	})
	want(t, "second Close", p.Close(), lwp.ErrPoolClosed)
	lwp.Sleep(5e6)
	select {
	case <-closed:
		t.Error("Close has not waited for the runs")
	default:
	}
	want(t, "TryJoin", running.TryJoin(), lwp.ErrRunning)
	s.leave.Raise()
	s2.leave.Raise()
	lwptest.Within(t, "Close", func() { want(t, "Close", <-closed, nil) })
	if s.n.Load() != 1 || s2.n.Load() != 1 {
		t.Error("the runs have not ended")
	}
	if n := len(lwp.Threads()); n != 0 {
		t.Errorf("%d threads after Close", n)
	}
	want(t, "Join after Close", running.Join(), nil)
	want(t, "Join of a detached run", detached.Join(), lwp.ErrDetached)
	_, err := lwp.StartAttr(come, new(stage), lwp.Attr{Pool: p})
	want(t, "Start on a closed pool", err, lwp.ErrPoolClosed)
}

func TestCloseOfUnusedPool(t *testing.T) {
	begin(t)
	closePool(t, newPool(t, lwp.PoolConfig{}))
}

var closeCode atomic.Uint32

func TestPoolsAreForGoroutinesToMake(t *testing.T) {
	begin(t)
	p := newPool(t, lwp.PoolConfig{})
	lwptest.OnThread(t, func(p *lwp.Pool) { closeCode.Store(uint32(lwptest.CodeOf(p.Close()))) }, p)
	if got := lwptest.Code(closeCode.Load()); got != lwptest.CodeOf(lwp.ErrHosted) {
		t.Error("Close on a thread: ", got)
	}
	lwptest.OnThread(t, func(*int) {
		_, err := lwp.NewPool(lwp.PoolConfig{})
		closeCode.Store(uint32(lwptest.CodeOf(err)))
	}, nil)
	if got := lwptest.Code(closeCode.Load()); got != lwptest.CodeOf(lwp.ErrHosted) {
		t.Error("NewPool on a thread: ", got)
	}
	closePool(t, p)
	for _, c := range []lwp.PoolConfig{
		{MaxThreads: -1}, {MaxIdle: -1}, {Attr: lwp.Attr{Detached: true}}, {Attr: lwp.Attr{Pool: p}},
	} {
		_, err := lwp.NewPool(c)
		want(t, "NewPool", err, lwp.ErrAttr)
	}
}

// TestExitEndsRunAndThread has every other run call Exit: its joiner is served,
// and the pool goes on with a new thread.
func TestExitEndsRunAndThread(t *testing.T) {
	begin(t)
	p := newPool(t, lwp.PoolConfig{MaxThreads: 1})
	tids := map[int32]bool{}
	for i := range lwptest.Count(500, 50) {
		s := new(stage)
		fn := func(s *stage) { come(s); lwp.Exit() }
		if i%2 == 0 {
			fn = come
		}
		var th lwp.Thread
		lwptest.Eventually(t, "room in the pool", func() (ok bool) {
			var err error
			th, err = lwp.StartAttr(fn, s, lwp.Attr{Pool: p})
			if err != nil {
				want(t, "Start", err, lwp.ErrPoolFull)
			}
			return err == nil
		})
		join(t, th)
		if s.n.Load() != 1 {
			t.Fatal("the function did not run")
		}
		tids[s.tid.Load()] = true
	}
	if len(tids) < 2 {
		t.Error("a thread has outlived its Exit")
	}
	closePool(t, p)
}

func TestExitOfDetachedRun(t *testing.T) {
	begin(t)
	p := newPool(t, lwp.PoolConfig{})
	n := new(stage)
	const runs = 200
	for range runs {
		startAttr(t, func(s *stage) { s.n.Add(1); lwp.Exit() }, n, lwp.Attr{Pool: p, Detached: true})
	}
	closePool(t, p)
	if got := n.n.Load(); got != runs {
		t.Errorf("%d of %d runs", got, runs)
	}
}

var runKey tls.Key[byte]

func TestStorageEndsWithTheRun(t *testing.T) {
	begin(t)
	destroyed := new(atomic.Int32)
	var err error
	runKey, err = tls.NewKey(func(*byte) { destroyed.Add(1) })
	want(t, "NewKey", err, nil)
	defer func() { want(t, "Delete", runKey.Delete(), nil) }()
	p := newPool(t, lwp.PoolConfig{MaxThreads: 1})
	for i := range int32(10) {
		found := new(atomic.Int32)
		join(t, startAttr(t, func(found *atomic.Int32) {
			if _, ok := runKey.Get(); ok {
				found.Store(1)
			}
			must(runKey.Set(1), nil)
		}, found, lwp.Attr{Pool: p}))
		if found.Load() != 0 {
			t.Fatal("a run finds what the one before has stored")
		}
		if got := destroyed.Load(); got != i+1 {
			t.Fatalf("%d destructors after %d runs", got, i+1)
		}
	}
	closePool(t, p)
}

// grower is what threads need to use a pool: they cannot allocate.
var grower struct {
	pool    *lwp.Pool
	nodes   [64]stage
	next    atomic.Int32
	code    atomic.Uint32
	threads [64]lwp.Thread
}

// TestPoolGrowsFromThreads has a thread start runs on a pool without threads,
// and runs start runs.
func TestPoolGrowsFromThreads(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	for range lwptest.Count(20, 5) {
		grower.pool = newPool(t, lwp.PoolConfig{Attr: lwp.Attr{Name: "grown", Nice: 1}})
		grower.next.Store(0)
		for i := range grower.nodes {
			grower.nodes[i].n.Store(0)
		}
		lwptest.OnThread(t, growPool, nil)
		if code := lwptest.Code(grower.code.Swap(0)); code != 0 {
			t.Fatal("on a thread: ", code)
		}
		for i := range grower.nodes {
			if n := grower.nodes[i].n.Load(); n != 1 {
				t.Fatalf("node %d ran %d times", i, n)
			}
		}
		closePool(t, grower.pool)
	}
	grower.pool = nil
}

func growPool(*stage) {
	for {
		i := grower.next.Add(1) - 1
		if int(i) >= len(grower.nodes) {
			return
		}
		fn := come
		if i%8 == 0 {
			fn = comeAndGrow
		}
		th, err := lwp.StartAttr(fn, &grower.nodes[i], lwp.Attr{Pool: grower.pool})
		if err != nil {
			grower.code.Store(uint32(lwptest.CodeOf(err)))
			return
		}
		grower.threads[i] = th
		if err := th.Join(); err != nil {
			grower.code.Store(uint32(lwptest.CodeOf(err)))
		}
	}
}

func comeAndGrow(s *stage) {
	come(s)
	growPool(s)
}

// TestPoolThreadsHaveThePoolsAttributes looks at runs on new and on parked threads.
func TestPoolThreadsHaveThePoolsAttributes(t *testing.T) {
	begin(t)
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	p := newPool(t, lwp.PoolConfig{Attr: lwp.Attr{Nice: 2, Policy: lwp.PolicyBatch, CPUs: cpus, StackSize: 1 << 20}})
	for range 3 {
		th, s := stays(t, lwp.Attr{Pool: p})
		if got, _ := policy(t, th.TID()); got != unix.SCHED_BATCH {
			t.Errorf("policy %d", got)
		}
		s.leave.Raise()
		join(t, th)
		depth := new(int)
		join(t, startAttr(t, func(n *int) { *n = deep(3000) }, depth, lwp.Attr{Pool: p}))
		if *depth != 1500 {
			t.Errorf("deep counted %d", *depth)
		}
	}
	closePool(t, p)
}

// TestPoolUnderLoad has goroutines start, join and detach runs on one pool of
// few threads, and threads come and go by its bounds.
func TestPoolUnderLoad(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	p := newPool(t, lwp.PoolConfig{MaxThreads: 6, MaxIdle: 2})
	var wg sync.WaitGroup
	total := new(stage)
	var started atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for i := range lwptest.Count(3000, 300) {
				attr := lwp.Attr{Pool: p, Detached: (i+g)%3 == 0}
				fn := func(s *stage) { s.n.Add(1) }
				if i%17 == 0 {
					fn = func(s *stage) { s.n.Add(1); lwp.Exit() }
				}
				th, err := lwp.StartAttr(fn, total, attr)
				if err == lwp.ErrPoolFull {
					lwp.Yield()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				started.Add(1)
				switch {
				case attr.Detached:
				case i%5 == 0:
					want(t, "Detach", th.Detach(), nil)
				default:
					want(t, "Join", th.Join(), nil)
				}
			}
		})
	}
	lwptest.Within(t, "the load", wg.Wait)
	closePool(t, p)
	if total.n.Load() != started.Load() || started.Load() == 0 {
		t.Errorf("%d of %d runs", total.n.Load(), started.Load())
	}
}
