package lwp_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

var ringKinds = []struct {
	name string
	kind lwp.RingKind
}{{"SPSC", lwp.SPSC}, {"MPSC", lwp.MPSC}, {"MPMC", lwp.MPMC}}

func newRing[T any](t testing.TB, capacity int, kind lwp.RingKind) *lwp.Ring[T] {
	t.Helper()
	r, err := lwp.NewRing[T](capacity, kind)
	if err != nil {
		t.Fatal("NewRing: ", err)
	}
	t.Cleanup(func() { r.Free() })
	return r
}

func TestRingTellsWhatIsNotPossible(t *testing.T) {
	for _, c := range []struct {
		capacity int
		kind     lwp.RingKind
		want     error
	}{
		{0, lwp.SPSC, lwp.ErrRingCapacity}, {-1, lwp.MPMC, lwp.ErrRingCapacity}, {lwp.MaxRing + 1, lwp.MPMC, lwp.ErrRingCapacity},
		{1, 3, lwp.ErrAttr},
	} {
		_, err := lwp.NewRing[int](c.capacity, c.kind)
		want(t, fmt.Sprint("NewRing of ", c.capacity), err, c.want)
	}
	_, err := lwp.NewRing[[1 << 20]int](lwp.MaxRing, lwp.MPMC)
	want(t, "NewRing of more than there is", err, lwp.ErrRingCapacity)
	_, err = lwp.NewRing[*int](1, lwp.SPSC)
	want(t, "a ring of pointers", err, lwp.ErrPointers)
	_, err = lwp.NewRing[struct {
		n int
		s [2]string
	}](1, lwp.SPSC)
	want(t, "a ring of strings", err, lwp.ErrPointers)
	for _, k := range ringKinds {
		r := newRing[int](t, 3, k.kind)
		if r.Cap() != 4 || r.Len() != 0 {
			t.Errorf("%s: Cap %d, Len %d", k.name, r.Cap(), r.Len())
		}
		want(t, "Close", r.Close(), nil)
		want(t, "second Close", r.Close(), lwp.ErrRingClosed)
		want(t, "Send after Close", r.Send(1), lwp.ErrRingClosed)
		want(t, "Free", r.Free(), nil)
		want(t, "second Free", r.Free(), lwp.ErrRingClosed)
		want(t, "Close after Free", r.Close(), lwp.ErrRingClosed)
		ringIsClosed(t, k.name+" after Free", r)
	}
	ringIsClosed(t, "the zero Ring", new(lwp.Ring[int]))
	var empty lwp.Ring[int]
	want(t, "Close of the zero Ring", empty.Close(), lwp.ErrRingClosed)
	want(t, "Free of the zero Ring", empty.Free(), lwp.ErrRingClosed)
}

func ringIsClosed(t *testing.T, what string, r *lwp.Ring[int]) {
	t.Helper()
	want(t, what+": TrySend", r.TrySend(1), lwp.ErrRingClosed)
	want(t, what+": Send", r.Send(1), lwp.ErrRingClosed)
	want(t, what+": SendFor", r.SendFor(1, time.Second), lwp.ErrRingClosed)
	want(t, what+": SendContext", r.SendContext(t.Context(), 1), lwp.ErrRingClosed)
	_, err := r.TryRecv()
	want(t, what+": TryRecv", err, lwp.ErrRingClosed)
	_, err = r.Recv()
	want(t, what+": Recv", err, lwp.ErrRingClosed)
	_, err = r.RecvFor(time.Second)
	want(t, what+": RecvFor", err, lwp.ErrRingClosed)
	_, err = r.RecvContext(t.Context())
	want(t, what+": RecvContext", err, lwp.ErrRingClosed)
}

// TestRingIsAQueue compares a ring with a slice, step by step.
func TestRingIsAQueue(t *testing.T) {
	for _, k := range ringKinds {
		for _, capacity := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%s/%d", k.name, capacity), func(t *testing.T) {
				r := newRing[[3]uint32](t, capacity, k.kind)
				var model [][3]uint32
				rnd := uint32(capacity)
				for i := range uint32(1000) {
					rnd = rnd*1664525 + 1013904223
					if rnd>>31 == 0 {
						v := [3]uint32{i, i + 1, i + 2}
						err := r.TrySend(v)
						if len(model) == capacity {
							want(t, "TrySend", err, lwp.ErrRingFull)
						} else {
							want(t, "TrySend", err, nil)
							model = append(model, v)
						}
					} else {
						v, err := r.TryRecv()
						if len(model) == 0 {
							want(t, "TryRecv", err, lwp.ErrRingEmpty)
						} else if err != nil || v != model[0] {
							t.Fatalf("TryRecv: %v, %v, want %v", v, err, model[0])
						} else {
							model = model[1:]
						}
					}
					if r.Len() != len(model) {
						t.Fatalf("Len %d, want %d", r.Len(), len(model))
					}
				}
				want(t, "Close", r.Close(), nil)
				for _, m := range model {
					if v, err := r.Recv(); err != nil || v != m {
						t.Fatalf("Recv after Close: %v, %v, want %v", v, err, m)
					}
				}
				_, err := r.Recv()
				want(t, "Recv of nothing", err, lwp.ErrRingClosed)
			})
		}
	}
}

// A port is one end of a ring as a thread or goroutine uses it.
type port struct {
	r        *lwp.Ring[uint64]
	id       uint64
	n        int
	how      int // 0: waits, 1: tries and yields, 2: waits with a deadline, in turns
	came     *atomic.Int64
	left     *atomic.Int64 // who still sends
	counts   []atomic.Uint32
	disorder *atomic.Int64
	err      lwptest.Code
}

const ringIDs = 32

func portSend(p *port) {
	for i := range p.n {
		v := p.id<<32 | uint64(i)
		for {
			var err error
			switch p.how {
			case 0:
				err = p.r.Send(v)
			case 1:
				if err = p.r.TrySend(v); err == lwp.ErrRingFull {
					lwp.Yield()
				}
			default:
				err = p.r.SendFor(v, time.Duration(i%3)*20*time.Microsecond)
			}
			if err == nil {
				break
			}
			if err != lwp.ErrRingFull && err != lwp.ErrDeadline {
				p.err = 1
				return
			}
		}
	}
	if p.left.Add(-1) == 0 {
		p.r.Close()
	}
}

func portRecv(p *port) {
	var last [ringIDs]uint64
	for i := 0; ; i++ {
		var v uint64
		var err error
		switch p.how {
		case 0:
			v, err = p.r.Recv()
		case 1:
			if v, err = p.r.TryRecv(); err == lwp.ErrRingEmpty {
				lwp.Yield()
				continue
			}
		default:
			if v, err = p.r.RecvFor(time.Duration(i%3) * 20 * time.Microsecond); err == lwp.ErrDeadline {
				continue
			}
		}
		if err != nil {
			if err != lwp.ErrRingClosed {
				p.err = 1
			}
			return
		}
		id, seq := v>>32%ringIDs, v&(1<<32-1)+1
		if seq <= last[id] {
			p.disorder.Add(1)
		}
		last[id] = seq
		p.counts[int(id)*p.n+int(seq-1)].Add(1)
		p.came.Add(1)
	}
}

// runPorts sends n values from each of senders to receivers, every other on a
// thread, and checks that each came once, in the order of its sender.
func runPorts(t *testing.T, r *lwp.Ring[uint64], senders, receivers, n int) {
	t.Helper()
	var came, left, disorder atomic.Int64
	left.Store(int64(senders))
	counts := make([]atomic.Uint32, senders*n)
	ports := make([]port, senders+receivers)
	var threads []lwp.Thread
	var wg sync.WaitGroup
	for i := range ports {
		fn := portSend
		if i >= senders {
			fn = portRecv
		}
		p := &ports[i]
		*p = port{r: r, id: uint64(i), n: n, how: i % 3, came: &came, left: &left, counts: counts, disorder: &disorder}
		if i%2 == 0 {
			threads = append(threads, start(t, fn, p))
		} else {
			wg.Go(func() { fn(p) })
		}
	}
	for _, th := range threads {
		join(t, th)
	}
	lwptest.Within(t, "the goroutines", wg.Wait)
	for i := range ports {
		if ports[i].err != 0 {
			t.Errorf("port %d of %d senders and %d receivers failed", i, senders, receivers)
		}
	}
	twice, never := 0, 0
	for i := range counts {
		switch c := counts[i].Load(); {
		case c == 0:
			never++
		case c > 1:
			twice++
		}
	}
	if came.Load() != int64(senders*n) || twice+never > 0 || disorder.Load() > 0 {
		t.Errorf("%d of %d came, %d never, %d twice, %d out of order", came.Load(), senders*n, never, twice, disorder.Load())
	}
	if r.Len() != 0 {
		t.Errorf("Len %d at the end", r.Len())
	}
}

func TestRingLosesNothing(t *testing.T) {
	begin(t)
	for _, k := range ringKinds {
		for _, capacity := range []int{1, 2, 64} {
			t.Run(fmt.Sprintf("%s/%d", k.name, capacity), func(t *testing.T) {
				senders, receivers := 3, 3
				if k.kind != lwp.MPMC {
					receivers = 1
				}
				if k.kind == lwp.SPSC {
					senders = 1
				}
				runPorts(t, newRing[uint64](t, capacity, k.kind), senders, receivers, lwptest.Soak(1500, 300))
			})
		}
	}
}

// TestRingBetweenGoroutines is for the race detector too.
func TestRingBetweenGoroutines(t *testing.T) {
	for _, k := range ringKinds {
		r := newRing[[2]int](t, 4, k.kind)
		var wg sync.WaitGroup
		sum := 0
		wg.Go(func() {
			for {
				v, err := r.Recv()
				if err != nil {
					return
				}
				sum += v[1] - v[0]
			}
		})
		wg.Go(func() {
			for i := range 1000 {
				if r.SendContext(t.Context(), [2]int{i, 2 * i}) != nil {
					t.Error("SendContext has failed")
				}
			}
			r.Close()
		})
		lwptest.Within(t, "the goroutines", wg.Wait)
		if sum != 999*500 {
			t.Errorf("%s: sum %d", k.name, sum)
		}
	}
}

// TestRingStampede has many wait at one end, and all go through.
func TestRingStampede(t *testing.T) {
	begin(t)
	runPorts(t, newRing[uint64](t, 2, lwp.MPMC), 20, 10, lwptest.Soak(60, 20))
	runPorts(t, newRing[uint64](t, 2, lwp.MPSC), 20, 1, lwptest.Soak(60, 20))
}

// pingPong hands values back and forth through two rings of one, both ends
// asleep most of the time if slow.
type pingPong struct {
	to, from *lwp.Ring[uint64]
	n        int
	patience time.Duration
	lost     bool
}

func (p *pingPong) answer() {
	for {
		v, err := p.to.RecvFor(p.patience)
		if err != nil {
			p.lost = err == lwp.ErrDeadline
			return
		}
		if p.from.SendFor(v, p.patience) != nil {
			p.lost = true
			return
		}
	}
}

func (p *pingPong) ask() {
	for i := range uint64(p.n) {
		if p.to.SendFor(i, p.patience) != nil {
			p.lost = true
			break
		}
		if v, err := p.from.RecvFor(p.patience); err != nil || v != i {
			p.lost = true
			break
		}
		if i%64 == 0 { // so that the other falls asleep
			lwp.Sleep(100 * time.Microsecond)
		}
	}
	p.to.Close()
}

func playPingPong(t *testing.T, kind lwp.RingKind, n int, naive bool, patience time.Duration) *pingPong {
	p := &pingPong{to: newRing[uint64](t, 1, kind), from: newRing[uint64](t, 1, kind), n: n, patience: patience}
	p.to.Widen(naive)
	p.from.Widen(naive)
	th := start(t, (*pingPong).answer, p)
	p2 := *p
	th2 := start(t, (*pingPong).ask, &p2)
	join(t, th2)
	join(t, th)
	p.lost = p.lost || p2.lost
	return p
}

func TestRingLosesNoWakeup(t *testing.T) {
	begin(t)
	for _, k := range ringKinds {
		if playPingPong(t, k.kind, lwptest.Soak(2000, 500), false, time.Minute).lost {
			t.Errorf("%s: a wake-up was lost", k.name)
		}
	}
}

// TestNaiveRingLosesWakeups runs the same on rings whose waiters do not look once
// more before they sleep, to show that the look is needed and the test finds it.
func TestNaiveRingLosesWakeups(t *testing.T) {
	lwptest.NotEmulated(t, "the timing of two threads")
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU: nobody sends while a receiver is on its way to sleep")
	}
	begin(t)
	for range 100 {
		if playPingPong(t, lwp.SPSC, 1000, true, 200*time.Millisecond).lost {
			return
		}
	}
	t.Error("no wake-up was lost")
}
