package futex_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

// passOn is a bounded buffer with one condition for each end: even ids put,
// odd ids take. Every Signal must reach somebody, or both ends wait for ever.
func passOn(w *world) {
	producer := w.id()%2 == 0
	for i := range w.rounds {
		w.mu.Lock()
		if producer {
			for w.tail-w.head == len(w.ring) {
				w.full.Wait(&w.mu)
			}
			w.ring[w.tail%len(w.ring)] = i + 1
			w.tail++
			w.mu.Unlock()
			w.cond.Signal() // without the mutex
		} else {
			for w.tail == w.head {
				w.cond.Wait(&w.mu)
			}
			w.plain += w.ring[w.head%len(w.ring)]
			w.head++
			w.full.Signal() // with the mutex
			w.mu.Unlock()
		}
	}
}

func TestCondSignalReachesSomebody(t *testing.T) {
	for _, n := range []int{2, 8} {
		play(t, n, 40000/n, nil, passOn, func(t *testing.T, w *world) {
			if want := w.n / 2 * w.rounds * (w.rounds + 1) / 2; w.plain != want {
				t.Errorf("sum %d, want %d", w.plain, want)
			}
		})
	}
}

// meet is a barrier made of a Cond: the last one in broadcasts.
func meet(w *world) {
	for range w.rounds {
		w.mu.Lock()
		turn := w.plain2
		if w.plain++; w.plain == w.n {
			w.plain = 0
			w.plain2++
			w.cond.Broadcast()
		}
		for w.plain2 == turn {
			w.cond.Wait(&w.mu)
		}
		w.mu.Unlock()
	}
}

// meetTimed is meet with waits that often end by themselves, some of them on
// the mutex that a Broadcast has moved them to.
func meetTimed(w *world) {
	for range w.rounds {
		w.mu.Lock()
		turn := w.plain2
		if w.plain++; w.plain == w.n {
			w.plain = 0
			w.plain2++
			w.mu.Unlock()
			w.cond.Broadcast()
			w.mu.Lock()
		}
		for w.plain2 == turn {
			w.cond.WaitFor(&w.mu, 50*time.Microsecond)
		}
		w.mu.Unlock()
	}
}

// meetInNoise is meet for all but the first, who signals and broadcasts what
// nobody waits for: a Broadcast finds that seq has moved on, and the woken
// find nothing changed.
func meetInNoise(w *world) {
	if w.id() != 0 {
		meet(w)
		atomic.StoreUint32(&w.stop, 1)
		return
	}
	for i := 0; atomic.LoadUint32(&w.stop) == 0; i++ {
		if i%4 == 0 {
			w.cond.Broadcast()
		} else {
			w.cond.Signal()
		}
		busy(time.Duration(i%8) * time.Microsecond)
	}
}

// signalAndBroadcast: the first broadcasts, the second signals at the same
// time, the others wait for the next turn. If the Signal comes inside the
// Broadcast it wakes one, and all others are still the Broadcast's.
func signalAndBroadcast(w *world) {
	id := w.id()
	for turn := 1; turn <= w.rounds; turn++ {
		switch id {
		case 0:
			w.sem.Acquire()
			w.mu.Lock()
			w.plain = 0
			w.plain2 = turn
			w.mu.Unlock()
			w.items.Release(1)
			busy(time.Duration(turn%8) * 100 * time.Nanosecond)
			w.cond.Broadcast()
		case 1:
			w.items.Acquire()
			w.cond.Signal()
		default:
			w.mu.Lock()
			if w.plain++; w.plain == w.n-2 {
				w.sem.Release(1) // the other waiters sleep, and this one will before the mutex is free
			}
			for w.plain2 < turn {
				w.cond.Wait(&w.mu)
			}
			w.mu.Unlock()
		}
	}
}

func TestCondSignalInsideBroadcast(t *testing.T) {
	play(t, 6, 2000, nil, signalAndBroadcast, func(t *testing.T, w *world) {})
}

func TestCondUnneededSignalsDoNoHarm(t *testing.T) {
	play(t, 6, 500, func(w *world) { w.n-- }, meetInNoise, func(t *testing.T, w *world) {
		if w.plain2 != w.rounds {
			t.Errorf("met %d times of %d", w.plain2, w.rounds)
		}
	})
}

func TestCondBroadcastReachesAll(t *testing.T) {
	for name, body := range map[string]func(*world){"wait": meet, "timed": meetTimed} {
		t.Run(name, func(t *testing.T) {
			play(t, 6, 1000, nil, body, func(t *testing.T, w *world) {
				if w.plain2 != w.rounds {
					t.Errorf("met %d times of %d", w.plain2, w.rounds)
				}
			})
		})
	}
}

func TestCondBroadcastMovesAllButOneToTheMutex(t *testing.T) {
	const waiters = 10
	w := new(world)
	c := newCrew(t)
	for i := range waiters {
		c.start(func() {
			w.mu.Lock()
			w.cond.Wait(&w.mu)
			w.plain++
			w.mu.Unlock()
		})
		asleep(t, word(&w.cond, 0), i+1)
	}
	w.mu.Lock()
	w.cond.Broadcast()
	if n := sleepers(word(&w.cond, 0)); n != 0 {
		t.Errorf("%d still sleep on the Cond", n)
	}
	// The one that was woken goes to sleep there too, the lock being held.
	asleep(t, word(&w.mu, 0), waiters)
	if w.plain != 0 {
		t.Errorf("%d went on without the mutex", w.plain)
	}
	w.mu.Unlock()
	within(t, "the chain of Unlocks to reach the last one", c.wg.Wait)
	if w.plain != waiters {
		t.Errorf("%d of %d", w.plain, waiters)
	}
	if n := *word(&w.cond, 1); n != 0 {
		t.Errorf("%d waiters counted where nobody waits", n)
	}
}

func TestCondSignalWakesOneAndTheFirst(t *testing.T) {
	w := new(world)
	c := newCrew(t)
	var order [3]atomic.Int32
	for i := range order {
		c.start(func() {
			w.mu.Lock()
			w.cond.Wait(&w.mu)
			w.plain++
			order[i].Store(int32(w.plain))
			w.mu.Unlock()
		})
		asleep(t, word(&w.cond, 0), i+1)
	}
	for i := range order {
		w.cond.Signal()
		eventually(t, "the next in the queue", func() bool { return order[i].Load() == int32(i+1) })
		if n := sleepers(word(&w.cond, 0)); n != len(order)-1-i {
			t.Errorf("%d sleep after %d signals", n, i+1)
		}
	}
}

func TestCondWithoutWaitersForgetsSignals(t *testing.T) {
	w := new(world)
	w.cond.Signal()
	w.cond.Broadcast()
	w.mu.Lock()
	if w.cond.WaitFor(&w.mu, time.Millisecond) {
		t.Error("a signal of before the wait ended it")
	}
	w.mu.Unlock()
}

// condition is what the naive version has in common with Cond. gap runs, in
// the naive version, between its unlock and its sleep.
type condition interface {
	wait(m *futex.Mutex)
	signal()
	word() *uint32
}

type realCond struct{ futex.Cond }

func (c *realCond) wait(m *futex.Mutex) { c.Wait(m) }
func (c *realCond) signal()             { c.Signal() }
func (c *realCond) word() *uint32       { return word(&c.Cond, 0) }

// lateCond looks at the count of signals after it has unlocked.
type lateCond struct {
	seq uint32
	gap func()
}

func (c *lateCond) wait(m *futex.Mutex) {
	m.Unlock()
	c.gap()
	futex.Wait(&c.seq, atomic.LoadUint32(&c.seq))
	m.Lock()
}
func (c *lateCond) signal() {
	atomic.AddUint32(&c.seq, 1)
	futex.Wake(&c.seq, 1)
}
func (c *lateCond) word() *uint32 { return &c.seq }

// signalled reports whether a waiter hears of a signal that is sent as soon as
// it gives the mutex up. The signaller queues on the mutex, so that the
// waiter's unlock is what starts it.
func signalled(t *testing.T, cond condition, sent *atomic.Bool, d time.Duration) bool {
	m := new(futex.Mutex)
	c := newCrew(t)
	var ready bool // under m
	var done atomic.Bool
	m.Lock()
	c.start(func() {
		m.Lock()
		ready = true
		m.Unlock()
		cond.signal()
		sent.Store(true)
	})
	asleep(t, word(m, 0), 1)
	c.start(func() {
		for !ready {
			cond.wait(m) // the lock is handed over to this goroutine
		}
		m.Unlock()
		done.Store(true)
	})
	if comes(d, done.Load) {
		return true
	}
	futex.Wake(cond.word(), futex.All)
	return false
}

func TestCondHearsASignalBetweenUnlockAndSleep(t *testing.T) {
	for range 100 {
		if !signalled(t, new(realCond), new(atomic.Bool), hang) {
			t.Fatal("the signal was lost")
		}
	}
	var sent atomic.Bool
	naive := &lateCond{gap: func() {
		for !sent.Load() {
			runtime.Gosched()
		}
	}}
	if signalled(t, naive, &sent, soon) {
		t.Error("the naive condition variable passes: this schedule proves nothing")
	}
}

func TestCondWaitOutlastsSignalHandlers(t *testing.T) {
	w := new(world)
	c := newCrew(t)
	tid := make(chan int, 1)
	var ended atomic.Bool
	c.startOpen(func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		w.mu.Lock()
		if !w.cond.WaitFor(&w.mu, time.Hour) {
			t.Error("timed out")
		}
		ended.Store(true)
		w.mu.Unlock()
	})
	id := <-tid
	asleep(t, word(&w.cond, 0), 1)
	for range 50 {
		unix.Tgkill(unix.Getpid(), id, unix.SIGURG)
		time.Sleep(100 * time.Microsecond)
	}
	asleep(t, word(&w.cond, 0), 1)
	if ended.Load() {
		t.Error("a signal handler ended the wait")
	}
	w.cond.Signal()
}

func TestCondWithTwoMutexesPanics(t *testing.T) {
	var c futex.Cond
	var m1, m2 futex.Mutex
	m1.Lock()
	c.WaitFor(&m1, 1)
	m2.Lock()
	mustPanic(t, "futex: Cond used with two Mutexes", func() { c.Wait(&m2) })
	if m2.TryLock() {
		t.Error("the panic has unlocked the Mutex")
	}
}

func TestCondWithoutTheLockPanics(t *testing.T) {
	var c futex.Cond
	var m futex.Mutex
	mustPanic(t, "futex: Unlock of an unlocked Mutex", func() { c.Wait(&m) })
}
