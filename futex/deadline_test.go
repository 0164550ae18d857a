package futex_test

import (
	"math"
	"testing"
	"time"

	"lwprt/futex"
)

// timed are all calls that take a time, on something that does not come.
func timed(t *testing.T) map[string]func(futex.Deadline) bool {
	x := new(uint32)
	raw := func(call func(futex.Deadline) (futex.Outcome, error)) func(futex.Deadline) bool {
		return func(d futex.Deadline) bool {
			for {
				o, err := call(d)
				if err != nil {
					t.Error(err)
				}
				if o != futex.Interrupted {
					return o != futex.TimedOut
				}
			}
		}
	}
	w := new(world)
	w.mu.Lock()
	w.wg.Add(1)
	m := new(futex.Mutex)
	return map[string]func(futex.Deadline) bool{
		"WaitUntil":        raw(func(d futex.Deadline) (futex.Outcome, error) { return futex.WaitUntil(x, 0, d) }),
		"Shared.WaitUntil": raw(func(d futex.Deadline) (futex.Outcome, error) { return futex.Shared.WaitUntil(x, 0, d) }),
		"WaitBitset":       raw(func(d futex.Deadline) (futex.Outcome, error) { return futex.Private.WaitBitset(x, 0, 8, d) }),
		"WaitFor":          raw(func(d futex.Deadline) (futex.Outcome, error) { return futex.WaitFor(x, 0, d.Remaining()) }),
		"Mutex.LockUntil":  w.mu.LockUntil,
		"Mutex.LockFor":    func(d futex.Deadline) bool { return w.mu.LockFor(d.Remaining()) },
		"Cond.WaitUntil": func(d futex.Deadline) bool {
			m.Lock()
			defer m.Unlock() // panics if the wait does not come back with it
			return w.cond.WaitUntil(m, d)
		},
		"Cond.WaitFor": func(d futex.Deadline) bool {
			m.Lock()
			defer m.Unlock()
			return w.cond.WaitFor(m, d.Remaining())
		},
		"Semaphore.AcquireUntil": w.sem.AcquireUntil,
		"Semaphore.AcquireFor":   func(d futex.Deadline) bool { return w.sem.AcquireFor(d.Remaining()) },
		"Event.WaitUntil":        w.ev.WaitUntil,
		"Event.WaitFor":          func(d futex.Deadline) bool { return w.ev.WaitFor(d.Remaining()) },
		"WaitGroup.WaitUntil":    w.wg.WaitUntil,
		"WaitGroup.WaitFor":      func(d futex.Deadline) bool { return w.wg.WaitFor(d.Remaining()) },
	}
}

func TestTimedCallsEndAtTheirTimeAndNotBefore(t *testing.T) {
	const d = 20 * time.Millisecond
	for clock, deadline := range map[string]func() futex.Deadline{
		"monotonic": func() futex.Deadline { return futex.After(d) },
		"realtime":  func() futex.Deadline { return futex.At(time.Now().Add(d)) },
	} {
		for name, call := range timed(t) {
			t.Run(clock+"/"+name, func(t *testing.T) {
				t.Parallel()
				end := deadline()
				within(t, "its time", func() {
					if call(end) {
						t.Error("what does not come came")
					}
				})
				// The Remaining of a relative call was read before it began.
				if left := end.Remaining(); left > 0 {
					t.Errorf("ended %v early", left)
				}
			})
		}
	}
}

func TestPassedDeadlinesEndAtOnce(t *testing.T) {
	for what, d := range map[string]futex.Deadline{
		"negative":  futex.After(math.MinInt64),
		"zero":      futex.After(0),
		"past":      futex.At(time.Now().Add(-time.Hour)),
		"zero Time": futex.At(time.Time{}),
		"year -1e9": futex.At(time.Date(-1e9, 1, 1, 0, 0, 0, 0, time.UTC)),
	} {
		if !d.Passed() || d.Remaining() > 0 {
			t.Errorf("%s: %v remain", what, d.Remaining())
		}
		for name, call := range timed(t) {
			within(t, what+" "+name, func() {
				if call(d) {
					t.Errorf("%s: %s did not time out", what, name)
				}
			})
		}
	}
}

func TestFarDeadlinesDoNotOverflow(t *testing.T) {
	for what, d := range map[string]futex.Deadline{
		"Never":     futex.Never,
		"longest":   futex.After(math.MaxInt64),
		"year 2262": futex.At(time.Unix(math.MaxInt64/int64(time.Second), 854775807)),
		"year 1e9":  futex.At(time.Date(1e9, 1, 1, 0, 0, 0, 0, time.UTC)),
	} {
		if d.Passed() || d.Remaining() < 100*365*24*time.Hour {
			t.Errorf("%s: %v remain", what, d.Remaining())
		}
		x := new(uint32)
		c := newCrew(t)
		c.start(func() {
			out, err := futex.WaitUntil(x, 0, d)
			expect(t, futex.Woken, out, err)
		})
		asleep(t, x, 1)
		c.start(func() {
			out, err := futex.WaitFor(x, 0, d.Remaining())
			expect(t, futex.Woken, out, err)
		})
		asleep(t, x, 2)
		time.Sleep(time.Millisecond)
		if n, _ := futex.Wake(x, futex.All); n != 2 {
			t.Errorf("%s: %d of 2 still slept", what, n)
		}
	}
}

func TestDeadlinesKeepTheirClock(t *testing.T) {
	now := time.Now()
	if left := futex.At(now.Add(time.Hour)).Remaining(); left > time.Hour || left < 59*time.Minute {
		t.Errorf("At in an hour: %v remain", left)
	}
	if left := futex.After(time.Hour).Remaining(); left > time.Hour || left < 59*time.Minute {
		t.Errorf("After an hour: %v remain", left)
	}
	t0 := time.Now()
	a := futex.Monotonic()
	time.Sleep(5 * time.Millisecond)
	b, t1 := futex.Monotonic(), time.Now()
	if got, limit := time.Duration(b-a), t1.Sub(t0); got < 5*time.Millisecond || got > limit {
		t.Errorf("%v on the monotonic clock, by time.Now at most %v", got, limit)
	}
	if (futex.Deadline{}) != futex.Never || futex.Never.Passed() {
		t.Error("the zero Deadline is not Never")
	}
}

func TestTimedCallsThatGetWhatTheyWaitFor(t *testing.T) {
	d := futex.After(time.Hour)
	for name, c := range map[string]struct {
		setup, release func(*world)
		call           func(*world) bool
		word           func(*world) *uint32
	}{
		"Mutex": {
			func(w *world) { w.mu.Lock() }, func(w *world) { w.mu.Unlock() },
			func(w *world) bool { return w.mu.LockUntil(d) },
			func(w *world) *uint32 { return word(&w.mu, 0) },
		},
		"Cond": {
			nil, func(w *world) { w.cond.Signal() },
			func(w *world) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.cond.WaitUntil(&w.mu, d) },
			func(w *world) *uint32 { return word(&w.cond, 0) },
		},
		"Semaphore": {
			nil, func(w *world) { w.sem.Release(1) },
			func(w *world) bool { return w.sem.AcquireUntil(d) },
			func(w *world) *uint32 { return word(&w.sem, 0) },
		},
		"Event": {
			nil, func(w *world) { w.ev.Set() },
			func(w *world) bool { return w.ev.WaitUntil(d) },
			func(w *world) *uint32 { return word(&w.ev, 0) },
		},
		"WaitGroup": {
			func(w *world) { w.wg.Add(1) }, func(w *world) { w.wg.Done() },
			func(w *world) bool { return w.wg.WaitUntil(d) },
			func(w *world) *uint32 { return word(&w.wg, 1) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := new(world)
			if c.setup != nil {
				c.setup(w)
			}
			crew := newCrew(t)
			crew.start(func() {
				if !c.call(w) {
					t.Error("timed out")
				}
			})
			asleep(t, c.word(w), 1)
			c.release(w)
			within(t, "the call", crew.wg.Wait)
		})
	}
}
