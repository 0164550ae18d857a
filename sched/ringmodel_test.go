package sched_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// What a ringUser does to a ring, when, and what came of it.
type deed struct {
	what       uint8
	out        uint8
	v          uint64
	begin, end int64
}

const (
	deedSend = iota
	deedSendFor
	deedRecv
	deedRecvFor
	deedClose
	deedNothing
)

var deedNames = [...]string{"TrySend", "SendFor", "TryRecv", "RecvFor", "Close", "nothing"}

const (
	outOK = iota
	outFull
	outEmpty
	outLate
	outClosed
	outOther
)

var outNames = [...]string{"ok", "full", "empty", "late", "closed", "wrong"}

func (d deed) String() string {
	return fmt.Sprintf("%s %d: %s at %d-%d", deedNames[d.what], d.v, outNames[d.out], d.begin, d.end)
}

func outOf(err error) uint8 {
	switch err {
	case nil:
		return outOK
	case lwp.ErrRingFull:
		return outFull
	case lwp.ErrRingEmpty:
		return outEmpty
	case lwp.ErrDeadline:
		return outLate
	case lwp.ErrRingClosed:
		return outClosed
	}
	return outOther
}

const (
	users = 3
	deeds = 4
)

// A scene is one ring and what is done to it.
type scene struct {
	r    *lwp.Ring[uint64]
	done [users][deeds]deed
}

// A drama is many scenes, which all users begin together.
type drama struct {
	scenes []scene
	clock  atomic.Int64
	came   atomic.Int64
}

type ringUser struct {
	p  *drama
	id int
}

func (a *ringUser) act() {
	p := a.p
	for i := range p.scenes {
		p.came.Add(1)
		for spins := 0; p.came.Load() < int64((i+1)*users); spins++ {
			if spins > 50 {
				lwp.Yield() // also on the fiber, which has its worker for itself
			}
		}
		s := &p.scenes[i]
		for k := range s.done[a.id] {
			d := &s.done[a.id][k]
			d.begin = p.clock.Add(1)
			var err error
			switch d.what {
			case deedSend:
				err = s.r.TrySend(d.v)
			case deedSendFor:
				err = s.r.SendFor(d.v, 3*time.Microsecond)
			case deedRecv:
				d.v, err = s.r.TryRecv()
			case deedRecvFor:
				d.v, err = s.r.RecvFor(3 * time.Microsecond)
			case deedClose:
				err = s.r.Close()
			}
			d.out = outOf(err)
			d.end = p.clock.Add(1)
		}
	}
}

// TestRingIsLinearizable: a goroutine, a thread and a fiber do a few things to a
// ring at the same time, and there is an order of these, one after another, in
// which a queue gives the same answers.
func TestRingIsLinearizable(t *testing.T) {
	s := begin(t, 1)
	seed := *stressSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	for _, kind := range []lwp.RingKind{lwp.SPSC, lwp.MPSC, lwp.MPMC} {
		for _, capacity := range []int{1, 2} {
			performScenes(t, s, rnd, kind, capacity, lwptest.Soak(120, 40))
			if t.Failed() {
				t.Logf("go test -run TestRingIsLinearizable -sched.seed=%d", seed)
				return
			}
		}
	}
}

func performScenes(t *testing.T, s *sched.Scheduler, rnd *rand.Rand, kind lwp.RingKind, capacity, n int) {
	t.Helper()
	p := &drama{scenes: make([]scene, n)}
	for i := range p.scenes {
		sc := &p.scenes[i]
		sc.r = newRing(t, capacity, kind)
		roles := rnd.Perm(users)
		for a := range sc.done {
			for k := range sc.done[a] {
				d := &sc.done[a][k]
				d.v = uint64(a*deeds + k + 1)
				d.what = uint8(rnd.IntN(4))
				switch {
				case kind == lwp.SPSC && roles[a] == 2 && rnd.IntN(6) != 0:
					d.what = deedNothing
				case rnd.IntN(12) == 0 || kind == lwp.SPSC && roles[a] == 2:
					d.what = deedClose
				case kind == lwp.MPMC:
				case roles[a] == 0: // the one who receives
					d.what = deedRecv + d.what%2
				default:
					d.what %= 2
				}
			}
		}
	}
	as := [users]ringUser{{p, 0}, {p, 1}, {p, 2}}
	f := spawn(t, s, (*ringUser).act, &as[0])
	th, err := lwp.Start((*ringUser).act, &as[1])
	if err != nil {
		t.Fatal(err)
	}
	lwptest.Within(t, "the goroutine", as[2].act)
	within(t, "Join", th.Join)
	within(t, "Join", f.Join)
	for i := range p.scenes {
		sc := &p.scenes[i]
		if !orderly(&sc.done, capacity) {
			var b strings.Builder
			for a := range sc.done {
				for _, d := range sc.done[a] {
					fmt.Fprintf(&b, "\n%d: %v", a, d)
				}
			}
			t.Errorf("kind %d, capacity %d: no order explains%s", kind, capacity, b.String())
			return
		}
		sc.r.Free()
	}
}

// orderly says whether there is an order that explains what was seen.
func orderly(done *[users][deeds]deed, capacity int) bool {
	type state struct {
		at     [users]int
		queue  string
		closed bool
	}
	seen := map[state]bool{}
	var search func(state) bool
	search = func(s state) bool {
		if s.at == [users]int{deeds, deeds, deeds} {
			return true
		}
		if seen[s] {
			return false
		}
		seen[s] = true
		first := int64(1 << 62) // what has ended by then comes first
		for a, at := range s.at {
			if at < deeds {
				first = min(first, done[a][at].end)
			}
		}
		for a, at := range s.at {
			if at == deeds || done[a][at].begin > first {
				continue
			}
			next, d := s, done[a][at]
			next.at[a]++
			ok := false
			switch {
			case d.what == deedNothing:
				ok = true
			case d.what == deedClose:
				ok = (d.out == outClosed) == s.closed && (d.out == outOK || d.out == outClosed)
				next.closed = true
			case d.what <= deedSendFor:
				switch d.out {
				case outOK:
					ok = !s.closed && len(s.queue) < capacity
					next.queue += string([]byte{byte(d.v)})
				case outFull, outLate:
					ok = !s.closed && len(s.queue) == capacity
				case outClosed:
					ok = s.closed
				}
			default:
				switch d.out {
				case outOK:
					if ok = len(s.queue) > 0 && s.queue[0] == byte(d.v); ok {
						next.queue = s.queue[1:]
					}
				case outEmpty, outLate:
					ok = !s.closed && len(s.queue) == 0
				case outClosed:
					ok = s.closed && len(s.queue) == 0
				}
			}
			if ok && search(next) {
				return true
			}
		}
		return false
	}
	return search(state{})
}

// TestOrderlyFindsWhatIsNot: the search is not content with everything.
func TestOrderlyFindsWhatIsNot(t *testing.T) {
	history := func(first, second uint64) *[users][deeds]deed {
		done := new([users][deeds]deed)
		at := int64(0)
		for k, d := range []deed{{what: deedSend, v: 1}, {what: deedSend, v: 2}, {what: deedRecv, v: first}, {what: deedRecv, v: second}} {
			d.begin, d.end = at, at+1
			at += 2
			done[0][k] = d
		}
		for a := 1; a < users; a++ {
			for k := range done[a] {
				done[a][k] = deed{what: deedRecv, out: outEmpty, begin: at, end: at + 1}
				at += 2
			}
		}
		return done
	}
	if !orderly(history(1, 2), 2) {
		t.Error("a queue is taken for none")
	}
	if orderly(history(2, 1), 2) || orderly(history(1, 1), 2) || orderly(history(1, 2), 1) {
		t.Error("what is no queue is taken for one")
	}
}
