package lwp_test

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// TestManyAliveAtOnce holds 10 000 threads at one time, all of them counted by
// the kernel, and joins them all.
func TestManyAliveAtOnce(t *testing.T) {
	begin(t)
	n := lwptest.Count(10_000, 1000)
	all := new(crew)
	threads := make([]lwp.Thread, n)
	for i := range threads {
		threads[i] = startAttr(t, assemble, all, lwp.Attr{StackSize: 16 << 10})
	}
	lwptest.Eventually(t, "all to come", func() bool { return int(all.came.Load()) == n })
	if got := len(lwp.Threads()); got != n {
		t.Errorf("%d threads are listed, want %d", got, n)
	}
	if !lwptest.Emulated() {
		if got := len(lwptest.Tasks()); got != n {
			t.Errorf("the kernel has %d tasks of ours, want %d", got, n)
		}
	}
	all.leave.Raise()
	lwptest.Within(t, "all to be joined", func() {
		for _, th := range threads {
			if err := th.Join(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if got := int(all.left.Load()); got != n {
		t.Errorf("%d of %d threads ran to their end", got, n)
	}
}

// A crew is counted when it comes and when it leaves.
type crew struct {
	came, left atomic.Int64
	leave      lwptest.Flag
}

func assemble(c *crew) {
	c.came.Add(1)
	c.leave.Wait()
	c.left.Add(1)
}

func count(n *atomic.Int64) { n.Add(1) }

func TestMillionOneAfterAnother(t *testing.T) {
	begin(t)
	n := lwptest.Count(1_000_000, 30_000)
	ran := new(atomic.Int64)
	began := time.Now()
	for range n {
		th, err := lwp.Start(count, ran)
		if err != nil {
			t.Fatal(err)
		}
		if err := th.Join(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%v for one", time.Since(began)/time.Duration(n))
	if got := int(ran.Load()); got != n {
		t.Errorf("%d of %d threads ran", got, n)
	}
}

// TestMillionDetached starts threads faster than they end: what ends must be
// taken back on the way, and no later than at the end.
func TestMillionDetached(t *testing.T) {
	begin(t)
	n := lwptest.Count(1_000_000, 30_000)
	ran := new(atomic.Int64)
	most := 0
	began := time.Now()
	for i := range n {
		if _, err := lwp.StartAttr(count, ran, lwp.Attr{Detached: true}); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			most = max(most, lwp.Records())
		}
	}
	lwptest.Eventually(t, "all to end", func() bool { return int(ran.Load()) == n && len(lwp.Threads()) == 0 })
	t.Logf("%v for one, up to %d records in use", time.Since(began)/time.Duration(n), most)
}

// collectHard keeps the collector running for a test, and has it run for small reasons too.
func collectHard(t *testing.T) {
	t.Helper()
	old := debug.SetGCPercent(5)
	t.Cleanup(func() { debug.SetGCPercent(old) })
	lwptest.Collect(t)
}

func TestGoroutinesStartAndJoinUnderCollection(t *testing.T) {
	begin(t)
	collectHard(t)
	const goroutines = 8
	n := lwptest.Count(20_000, 1000)
	ran := make([]atomic.Int64, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range n {
				// An argument of its own that only the thread refers to.
				arg := &parcel{to: &ran[g], check: uint64(i)}
				arg.body[0], arg.body[len(arg.body)-1] = arg.check, ^arg.check
				th, err := lwp.Start(deliver, arg)
				if err != nil {
					t.Error(err)
					return
				}
				arg = nil
				if err := th.Join(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for g := range ran {
		if got := ran[g].Load(); got != int64(n) {
			t.Errorf("goroutine %d: %d of %d parcels arrived whole", g, got, n)
		}
	}
}

type parcel struct {
	to    *atomic.Int64
	check uint64
	body  [32]uint64
}

func deliver(p *parcel) {
	if p.body[0] == p.check && p.body[len(p.body)-1] == ^p.check {
		p.to.Add(1)
	}
}

// TestHandlesCrossThreads has some goroutines start, others join or detach, in any
// order and in bulk, while the collector runs.
func TestHandlesCrossThreads(t *testing.T) {
	begin(t)
	collectHard(t)
	n := lwptest.Count(10_000, 1000)
	handles := make(chan lwp.Thread, 100)
	ran := new(atomic.Int64)
	var starters, joiners sync.WaitGroup
	for range 4 {
		starters.Go(func() {
			for range n {
				th, err := lwp.Start(count, ran)
				if err != nil {
					t.Error(err)
					return
				}
				handles <- th
			}
		})
	}
	for g := range 3 {
		joiners.Go(func() {
			for th := range handles {
				switch g {
				case 0:
					want(t, "Detach", th.Detach(), nil)
				case 1:
					for th.TryJoin() == lwp.ErrRunning {
						runtime.Gosched()
					}
					want(t, "TryJoin", th.TryJoin(), lwp.ErrJoined)
				case 2:
					want(t, "JoinFor", th.JoinFor(time.Minute), nil)
				}
			}
		})
	}
	starters.Wait()
	close(handles)
	joiners.Wait()
	lwptest.Eventually(t, "all to end", func() bool { return len(lwp.Threads()) == 0 })
	if got := ran.Load(); got != int64(4*n) {
		t.Errorf("%d of %d threads ran", got, 4*n)
	}
}

// TestStacksOfManySizesAreUsedAgain fills the cache with sizes that nobody asks for
// any more; the bound must hold, and no stack be used as what it is not.
func TestStacksOfManySizesAreUsedAgain(t *testing.T) {
	begin(t)
	const limit = 8 << 20
	old := lwp.SetStackCache(limit)
	defer lwp.SetStackCache(old)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range lwptest.Count(3000, 300) {
				size := 16 << 10 << ((i + g) % 8)
				got := new(int)
				depth := (size - 4096) / 256
				th, err := lwp.StartAttr(func(got *int) { *got = deep(depth) }, got, lwp.Attr{StackSize: size, GuardSize: 4096 * (i % 3)})
				if err != nil {
					t.Error(err)
					return
				}
				want(t, "Join", th.Join(), nil)
				if *got != (depth+1)/2 {
					t.Errorf("stack of %d bytes: deep counted %d", size, *got)
				}
			}
		})
	}
	wg.Wait()
	if got := lwp.CachedStacks(); got > limit || got == 0 {
		t.Errorf("%d bytes of stacks are cached, at most %d may be", got, limit)
	}
	if got := lwp.SetStackCache(0); got != limit {
		t.Errorf("the limit was %d, want %d", got, limit)
	}
	if got := lwp.CachedStacks(); got != 0 {
		t.Errorf("%d bytes of stacks are cached, none may be", got)
	}
	join(t, start(t, come, new(stage)))
	if got := lwp.CachedStacks(); got != 0 {
		t.Errorf("%d bytes of stacks are cached, none may be", got)
	}
	lwp.SetStackCache(-1)
	if got := lwp.SetStackCache(limit); got != 0 {
		t.Errorf("a negative limit is %d", got)
	}
}
