package sched

import (
	"math/rand/v2"
	"os"
	"sort"
	"testing"
	"time"
	"unsafe"

	"lwprt/lwp/lwptest"
)

// A modelled entry is what the model knows of one.
type modelled struct {
	e   entry
	at  int64 // when it is due, or that of the wheel when it was added, if that was later
	seq int
	in  bool
}

// TestWheelAgainstASortedList arms, cancels, arms again and lets expire, at
// random, with a clock of its own.
func TestWheelAgainstASortedList(t *testing.T) {
	end := time.Now().Add(time.Duration(lwptest.Count(1000, 100)) * time.Millisecond)
	if d, err := time.ParseDuration(os.Getenv("LWPRT_SCHED_STRESS")); err == nil {
		end = time.Now().Add(d)
	}
	for round := uint64(0); round == 0 || time.Now().Before(end); round++ {
		seed := uint64(time.Now().UnixNano())
		if !wheelRound(t, rand.New(rand.NewPCG(seed, round))) {
			t.Fatalf("the seed is %d, %d", seed, round)
		}
	}
}

func wheelRound(t *testing.T, r *rand.Rand) bool {
	var w wheel
	w.now = 1 + r.Int64N(1<<40)
	now := w.now
	all := make([]modelled, 1+r.IntN(200))
	width := uint(r.IntN(50)) // how far apart instants are, as a power of two
	in, seq := 0, 0
	for range 2000 {
		m := &all[r.IntN(len(all))]
		switch op := r.IntN(4); {
		case op < 2 && m.in:
			w.remove(&m.e)
			m.in = false
			in--
			if op == 0 {
				break
			}
			fallthrough
		case op < 2:
			at := now + r.Int64N(2<<width) - 1<<width/4
			if r.IntN(100) == 0 {
				at = 1<<63 - 1 - r.Int64N(100)
			}
			m.at, m.seq, m.in = max(at, w.now), seq, true
			seq++
			in++
			w.add(&m.e, at)
		case op == 2:
			now += r.Int64N(1 << r.IntN(int(width)+1))
		default:
			if !wheelExpires(t, &w, all, now, r.IntN(100)) {
				return false
			}
			in = 0
			for i := range all {
				if all[i].in {
					in++
				}
			}
		}
		first := int64(1<<63 - 1)
		for i := range all {
			if all[i].in {
				first = min(first, all[i].at)
			}
		}
		if next := w.next(); w.n != uint64(in) || (next == 0) != (in == 0) || next > first {
			t.Errorf("%d entries, want %d; next %d, first %d", w.n, in, next, first)
			return false
		}
	}
	return wheelExpires(t, &w, all, 1<<63-1, 1000)
}

// wheelExpires compares up to most entries that are due with the model's.
func wheelExpires(t *testing.T, w *wheel, all []modelled, now int64, most int) bool {
	var want []*modelled
	for i := range all {
		if all[i].in && all[i].at <= now {
			want = append(want, &all[i])
		}
	}
	sort.Slice(want, func(i, j int) bool {
		a, b := want[i], want[j]
		return a.at < b.at || a.at == b.at && a.seq < b.seq
	})
	for _, m := range want {
		if most--; most < 0 {
			return true
		}
		e := w.due(now)
		if e != &m.e {
			got := (*modelled)(unsafe.Pointer(e))
			t.Errorf("%+v is due at %d, want %+v", got, now, m)
			return false
		}
		w.remove(e)
		m.in = false
	}
	if e := w.due(now); e != nil {
		t.Errorf("%+v is due at %d, and nothing should be", e, now)
		return false
	}
	return true
}
