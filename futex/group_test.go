package futex_test

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
)

// Barrier.

// stepTogether checks that nobody is a round ahead or behind, by plain words
// that only the barrier guards.
func stepTogether(w *world) {
	id := w.id()
	for round := range int32(w.rounds) {
		w.shared[id] = round + 1
		if round%32 == int32(id) {
			busy(10 * time.Microsecond)
		}
		if w.bar.Wait() {
			w.plain++
		}
		for i := range w.n {
			if w.shared[i] != round+1 {
				w.wrong()
			}
		}
		if w.bar.Wait() {
			w.plain++
		}
	}
}

func TestBarrierKeepsRoundsTogether(t *testing.T) {
	for _, n := range []int{1, 2, 7} {
		play(t, n, 10000/n, func(w *world) { w.bar.Init(w.n) }, stepTogether, func(t *testing.T, w *world) {
			if w.plain != 2*w.rounds {
				t.Errorf("%d serial callers in %d rounds", w.plain, 2*w.rounds)
			}
		})
	}
}

// crowd has more callers than the barrier takes at a time; together they
// arrive n*rounds times.
func crowd(w *world) {
	for w.id() < w.n*w.rounds {
		if w.bar.Wait() {
			atomic.AddInt32(&w.inside, 1)
		}
	}
}

func TestBarrierSmallerThanTheCrowd(t *testing.T) {
	play(t, 6, 3000, func(w *world) { w.bar.Init(3) }, crowd, func(t *testing.T, w *world) {
		if want := int32(w.n * w.rounds / 3); w.inside != want {
			t.Errorf("%d groups, want %d", w.inside, want)
		}
	})
}

type barrier interface{ arrive(quit *atomic.Bool) }

type realBarrier struct{ *futex.Barrier }

func (b realBarrier) arrive(*atomic.Bool) { b.Wait() }

// twoStepBarrier counts an arrival and reads the generation in two steps.
type twoStepBarrier struct {
	n, arrived, gen uint32
	gap             func(gen *uint32)
}

func (b *twoStepBarrier) arrive(quit *atomic.Bool) {
	if atomic.AddUint32(&b.arrived, 1) == b.n {
		atomic.StoreUint32(&b.arrived, 0)
		atomic.AddUint32(&b.gen, 1)
		futex.Wake(&b.gen, futex.All)
		return
	}
	b.gap(&b.gen)
	gen := atomic.LoadUint32(&b.gen)
	for atomic.LoadUint32(&b.gen) == gen && !quit.Load() {
		futex.WaitFor(&b.gen, gen, 10*time.Millisecond)
	}
}

func bothArrive(t *testing.T, b barrier, d time.Duration) bool {
	c := newCrew(t)
	var quit atomic.Bool
	var through atomic.Int32
	for range 2 {
		c.start(func() { b.arrive(&quit); through.Add(1) })
	}
	defer quit.Store(true)
	return comes(d, func() bool { return through.Load() == 2 })
}

func TestBarrierArrivalThatIsOvertakenByItsRelease(t *testing.T) {
	for range 100 {
		if !bothArrive(t, realBarrier{futex.NewBarrier(2)}, hang) {
			t.Fatal("an arrival sleeps through its release")
		}
	}
	naive := &twoStepBarrier{n: 2, gap: func(gen *uint32) {
		for atomic.LoadUint32(gen) == 0 {
			time.Sleep(time.Millisecond) // much less, and with one P nothing else runs
		}
	}}
	if bothArrive(t, naive, soon) {
		t.Error("the naive barrier passes: this schedule proves nothing")
	}
}

func TestBarrierOfNonePanics(t *testing.T) {
	const text = "futex: Barrier of 0"
	mustPanic(t, text, func() { new(futex.Barrier).Wait() })
	mustPanic(t, text, func() { futex.NewBarrier(0) })
	mustPanic(t, text, func() { futex.NewBarrier(-1) })
	mustPanic(t, text, func() { futex.NewBarrier(math.MaxInt) })
}

// WaitGroup.

// workAndWait: the first is the one who waits, again and again, for the others.
func workAndWait(w *world) {
	id := w.id()
	for round := range w.rounds {
		if id == 0 {
			w.wg.Add(w.n - 1)
			w.bar.Wait()
			w.wg.Wait()
			for i := 1; i < w.n; i++ {
				if int(w.shared[i]) != round+1 {
					w.wrong()
				}
			}
			w.bar.Wait()
		} else {
			w.bar.Wait()
			w.shared[id]++ // plain: Done, Wait and the next Barrier order it
			w.wg.Done()
			w.bar.Wait()
		}
	}
}

func TestWaitGroupWaitsForEveryDone(t *testing.T) {
	play(t, 4, 5000, func(w *world) { w.bar.Init(w.n) }, workAndWait, func(t *testing.T, w *world) {})
}

type group interface {
	wait(quit *atomic.Bool)
	reuse()
	word() *uint32
}

type realGroup struct{ futex.WaitGroup }

func (g *realGroup) wait(*atomic.Bool) { g.Wait() }
func (g *realGroup) word() *uint32     { return word(&g.WaitGroup, 1) }
func (g *realGroup) reuse() {
	g.Done()
	g.Add(1)
}

// countGroup sleeps while the count is not 0.
type countGroup struct{ count uint32 }

func (g *countGroup) word() *uint32 { return &g.count }
func (g *countGroup) wait(quit *atomic.Bool) {
	for {
		v := atomic.LoadUint32(&g.count)
		if v == 0 || quit.Load() {
			return
		}
		futex.WaitFor(&g.count, v, 10*time.Millisecond)
	}
}

// reuse adds before a waiter has come to look.
func (g *countGroup) reuse() {
	atomic.AddUint32(&g.count, ^uint32(0))
	atomic.AddUint32(&g.count, 1)
	futex.Wake(&g.count, futex.All)
}

func endOfRound(t *testing.T, g group, d time.Duration) bool {
	c := newCrew(t)
	var quit atomic.Bool
	var got atomic.Int32
	for range 3 {
		c.start(func() { g.wait(&quit); got.Add(1) })
	}
	asleep(t, g.word(), 3)
	g.reuse()
	defer quit.Store(true)
	return comes(d, func() bool { return got.Load() == 3 })
}

func TestWaitGroupUsedAgainAtOnceStillReleases(t *testing.T) {
	for range 20 {
		g := new(realGroup)
		g.Add(1)
		if !endOfRound(t, g, hang) {
			t.Fatal("who waited for the first round waits for the second")
		}
		g.Done()
	}
	if endOfRound(t, &countGroup{count: 1}, soon) {
		t.Error("the naive group passes: this schedule proves nothing")
	}
}

func TestWaitGroupZeroDoesNotWait(t *testing.T) {
	var g futex.WaitGroup
	g.Wait()
	if !g.WaitFor(0) || !g.WaitUntil(futex.After(-1)) {
		t.Error("an empty group is not done")
	}
	g.Add(2)
	g.Done()
	if g.WaitFor(time.Millisecond) {
		t.Error("done with one missing")
	}
	g.Add(-1)
	g.Wait()
}

func TestWaitGroupMisusePanics(t *testing.T) {
	const negative, large = "futex: negative WaitGroup counter", "futex: WaitGroup counter too large"
	var g futex.WaitGroup
	mustPanic(t, negative, g.Done)
	mustPanic(t, negative, func() { g.Add(math.MinInt) })
	mustPanic(t, large, func() { g.Add(math.MaxInt) })
	g.Add(math.MaxInt32)
	mustPanic(t, large, func() { g.Add(1) })
	mustPanic(t, negative, func() { g.Add(math.MinInt) })
	g.Add(-math.MaxInt32)
	g.Wait()
}
