package futex_test

import (
	"testing"

	"lwprt/futex"
)

// shareAll makes everything in c work between processes.
func (c *common) shareAll() {
	c.mu.Share()
	c.rw.Share()
	c.cond.Share()
	c.full.Share()
	c.sem.Share()
	c.items.Share()
	c.ev.Share()
	c.bar.Share()
	c.wg.Share()
	c.once.Share()
	c.pi.Share()
	c.picond.Share()
}

func init() {
	// Two goroutines in each process, so that wakes of both kinds are needed.
	part := func(body func(*world)) func(*common) int {
		return func(c *common) int {
			other := startGoroutine(&c.world, 0, body)
			body(&c.world)
			other()
			return 0
		}
	}
	roles["allInOne"] = part(allInOne)
	roles["ringAround"] = part(ringAround)
	roles["bounded"] = part(bounded)
	roles["pingPong"] = func(c *common) int { pingPong(&c.world); return 0 }
	roles["onceInTurns"] = part(onceInTurnsShared)
}

// onceInTurnsShared is onceInTurns for a Once that stays shared.
func onceInTurnsShared(w *world) {
	for i := range w.rounds {
		w.bar.Wait()
		w.once.Do(func() { w.plain++ })
		if w.plain != i+1 {
			w.wrong()
		}
		if w.bar.Wait() {
			w.once = futex.Once{}
			w.once.Share()
		}
	}
}

// TestSharedPrimitivesWorkBetweenProcesses fails where a wake stays in its own
// process: somebody of the other sleeps for ever.
func TestSharedPrimitivesWorkBetweenProcesses(t *testing.T) {
	for _, c := range []struct {
		role   string
		n      int
		rounds int
		check  func(*common) bool
	}{
		{"allInOne", 4, 1000, func(c *common) bool { return c.plain == c.n*c.rounds && c.plain2 == c.n/2*c.rounds }},
		{"ringAround", 4, 2000, func(c *common) bool { return c.head == c.tail && c.head == c.n/2*c.rounds }},
		{"bounded", 4, 5000, func(c *common) bool { return c.inside == 0 }},
		{"pingPong", 2, 5000, func(c *common) bool { return c.plain == 2*c.rounds }},
		{"onceInTurns", 4, 500, func(c *common) bool { return c.plain == c.rounds }},
	} {
		t.Run(c.role, func(t *testing.T) {
			m, file := newCommon(t)
			m.n, m.rounds = c.n, c.rounds
			if testing.Short() {
				m.rounds /= 10
			}
			m.bar.Init(m.n)
			m.shareAll()
			if c.role == "bounded" {
				m.sem.Release(2)
			}
			a, b := spawn(t, file, c.role), spawn(t, file, c.role)
			ended(t, a)
			ended(t, b)
			if m.bad != 0 || !c.check(m) {
				t.Errorf("%d violations; counted %d and %d", m.bad, m.plain, m.plain2)
			}
		})
	}
}

// TestShareInUsePanics fails where sleepers would be left in the other scope.
func TestShareInUsePanics(t *testing.T) {
	const want = "futex: Share of a primitive in use"
	var (
		m   futex.Mutex
		rw  futex.RWMutex
		sem futex.Semaphore
		pi  futex.PIMutex
	)
	m.Lock()
	mustPanic(t, want, m.Share)
	m.Unlock()
	m.Share()
	m.Lock()
	m.Share() // again, as a second process may
	m.Unlock()
	rw.RLock()
	mustPanic(t, want, rw.Share)
	sem.Release(1)
	mustPanic(t, want, sem.Share)
	if err := pi.Lock(); err != nil {
		t.Skip(err)
	}
	mustPanic(t, want, pi.Share)
	pi.Unlock()
}

// TestUnsharedPrimitiveStaysPrivate fails if the zero value came to be shared, which
// costs a look-up of the page at every sleep and wake.
func TestUnsharedPrimitiveStaysPrivate(t *testing.T) {
	var m futex.Mutex
	m.Lock()
	c := newCrew(t)
	c.start(func() { enter(&m) })
	asleep(t, word(&m, 0), 1)
	if n := sharedSleepers(word(&m, 0)); n != 0 {
		t.Errorf("%d sleep where every process could wake them", n)
	}
	m.Unlock()
	c.wg.Wait()
}
