package sched_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// # Histories
//
// Actors, of all kinds, use one primitive at random, in rounds, and each call is
// recorded with a stamp before and one after. A history is right if its calls can
// be put in an order that the stamps allow and in which a sequential model does
// what they did.

// A call is one call of an operation and what it returned.
type call struct {
	begin, end int64
	op         uint8
	ok         bool
	n          int8
	actor      int8
}

// Operations.
const (
	callLock    = iota // comes back with what it waited for, or not
	callTry            // does not wait
	callUnlock         //
	callRLock          //
	callTryR           //
	callRUnlock        //
	callSet            //
	callReset          //
	callIsSet          //
	callWait           //
	callAdd            //
)

var callNames = [...]string{"Lock", "TryLock", "Unlock", "RLock", "TryRLock", "RUnlock", "Set", "Reset", "IsSet", "Wait", "Add"}

func (c call) String() string {
	return fmt.Sprintf("%3d-%3d actor %d: %s(%d) %v", c.begin, c.end, c.actor, callNames[c.op], c.n, c.ok)
}

const (
	actors    = 5
	perRound  = 4
	permits   = 2
	maxRounds = 400
)

// A stage is what actors play on.
type stage struct {
	kind   int // as for ward.wait
	rounds int
	stamp  atomic.Int64
	bar    sched.Barrier
	m      sched.Mutex
	rw     sched.RWMutex
	s      sched.Semaphore
	e      sched.Event
	g      sched.WaitGroup
	serial atomic.Int64
	calls  [maxRounds][actors][perRound + 2]call
	n      [maxRounds][actors]int
}

type actor struct {
	st   *stage
	id   int
	seed uint64
}

func (a *actor) act() {
	st := a.st
	for r := range st.rounds {
		if st.bar.Wait() {
			st.e.Reset()
			st.stamp.Store(0)
			st.serial.Add(1)
		}
		st.bar.Wait()
		a.round(r)
	}
}

func actOn(a *actor) { a.act() }

// round does some calls, after which the actor holds nothing.
func (a *actor) round(r int) {
	st, x := a.st, &a.seed
	for n := 0; n < perRound; {
		c := &st.calls[r][a.id][n]
		n++
		*c = call{actor: int8(a.id), n: 1}
		if random(x)%4 == 0 {
			sched.Yield()
		}
		what := random(x)
		limit := sched.Limit{}
		if what%4 == 1 {
			limit = sched.For(time.Duration(random(x) % 20_000))
		}
		c.begin = st.stamp.Add(1)
		switch st.kind {
		case forMutex:
			switch what % 4 {
			case 0:
				c.op, c.ok = callTry, st.m.TryLock()
			case 1:
				c.op, c.ok = callLock, st.m.LockWithin(limit) == nil
			default:
				c.op, c.ok = callLock, true
				st.m.Lock()
			}
		case forWrite, forRead:
			read := random(x)%3 != 0
			switch {
			case what%4 == 0 && read:
				c.op, c.ok = callTryR, st.rw.TryRLock()
			case what%4 == 0:
				c.op, c.ok = callTry, st.rw.TryLock()
			case what%4 == 1 && read:
				c.op, c.ok = callRLock, st.rw.RLockWithin(limit) == nil
			case what%4 == 1:
				c.op, c.ok = callLock, st.rw.LockWithin(limit) == nil
			case read:
				c.op, c.ok = callRLock, true
				st.rw.RLock()
			default:
				c.op, c.ok = callLock, true
				st.rw.Lock()
			}
		case forSemaphore:
			c.n = int8(random(x)%permits) + 1
			switch what % 4 {
			case 0:
				c.op, c.ok = callTry, st.s.TryAcquire(int(c.n))
			case 1:
				c.op, c.ok = callLock, st.s.AcquireWithin(int(c.n), limit) == nil
			default:
				c.op, c.ok = callLock, true
				st.s.Acquire(int(c.n))
			}
		case forEvent:
			switch what % 4 {
			case 0:
				c.op = callSet
				st.e.Set()
			case 1:
				c.op, c.ok = callWait, st.e.WaitWithin(limit) == nil
			case 2:
				c.op = callReset
				st.e.Reset()
			case 3:
				c.op, c.ok = callIsSet, st.e.IsSet()
			}
		case forGroup:
			if what%4 <= 1 {
				limit = sched.For(time.Duration(random(x) % 20_000))
				c.op, c.ok = callWait, st.g.WaitWithin(limit) == nil
			} else {
				c.op, c.ok = callAdd, true
				st.g.Add(1)
			}
		}
		c.end = st.stamp.Add(1)
		if !c.ok || c.op >= callSet && c.op != callAdd {
			st.n[r][a.id] = n
			continue
		}
		if random(x)%2 == 0 {
			sched.Yield()
		}
		u := &st.calls[r][a.id][n]
		n++
		*u = call{actor: int8(a.id), n: c.n, op: callUnlock}
		u.begin = st.stamp.Add(1)
		switch {
		case st.kind == forMutex:
			st.m.Unlock()
		case st.kind == forSemaphore:
			st.s.Release(int(c.n))
		case st.kind == forGroup:
			st.g.Done()
			u.op, u.n = callAdd, -1
		case c.op == callRLock || c.op == callTryR:
			u.op = callRUnlock
			st.rw.RUnlock()
		default:
			st.rw.Unlock()
		}
		u.end = st.stamp.Add(1)
		st.n[r][a.id] = n
	}
}

// model says whether c can do what it did in a state, and the state after it.
// contended is that others wait, or may have, who are served first.
func model(kind, state int, c call, contended bool) (int, bool) {
	switch kind {
	case forMutex:
		switch {
		case c.op == callUnlock:
			return 0, state == 1
		case c.ok:
			return 1, state == 0
		}
		return state, state == 1 || contended
	case forRead, forWrite: // 100 for a writer, 1 for a reader
		switch {
		case c.op == callUnlock:
			return 0, state == 100
		case c.op == callRUnlock:
			return state - 1, state > 0 && state < 100
		case c.op == callRLock || c.op == callTryR:
			if c.ok {
				return state + 1, state < 100
			}
			return state, state == 100 || contended
		case c.ok:
			return 100, state == 0
		}
		return state, state != 0 || contended
	case forSemaphore: // state counts those that are taken
		switch {
		case c.op == callUnlock:
			return state - int(c.n), true
		case c.ok:
			return state + int(c.n), state+int(c.n) <= permits
		}
		return state, state+int(c.n) > permits || contended
	case forEvent:
		switch c.op {
		case callSet:
			return 1, true
		case callReset:
			return 0, true
		}
		return state, (state == 1) == c.ok
	case forGroup:
		if c.op == callAdd {
			return state + int(c.n), state+int(c.n) >= 0
		}
		return state, (state == 0) == c.ok
	}
	return 0, false
}

// linear says whether there is an order of calls that the model allows.
func linear(kind int, calls []call) bool {
	contended := make([]bool, len(calls))
	for i, c := range calls {
		for _, d := range calls {
			if d.actor != c.actor && (d.op == callLock || d.op == callRLock) && d.begin < c.end && c.begin < d.end {
				contended[i] = true
			}
		}
	}
	type at struct {
		done  uint64
		state int
	}
	seen := make(map[at]bool)
	var from func(at) bool
	from = func(now at) bool {
		if now.done == 1<<len(calls)-1 {
			return true
		}
		if seen[now] {
			return false
		}
		seen[now] = true
		first := int64(1 << 62) // the first end among those that are left
		for i, c := range calls {
			if now.done>>i&1 == 0 {
				first = min(first, c.end)
			}
		}
		for i, c := range calls {
			if now.done>>i&1 == 0 && c.begin < first {
				if state, ok := model(kind, now.state, c, contended[i]); ok && from(at{now.done | 1<<i, state}) {
					return true
				}
			}
		}
		return false
	}
	return from(at{})
}

// TestHistoriesAreLinear records histories of each primitive.
func TestHistoriesAreLinear(t *testing.T) {
	for _, kind := range []int{forMutex, forWrite, forSemaphore, forEvent, forGroup} {
		for _, workers := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%s/workers=%d", waitNames[kind], workers), func(t *testing.T) { histories(t, kind, workers) })
		}
	}
}

func histories(t *testing.T, kind, workers int) {
	c := newCrew(t, workers)
	st := &stage{kind: kind, rounds: lwptest.Count(400, 60)}
	st.bar.Init(actors)
	st.s.Release(permits)
	cast := make([]actor, actors)
	seed := uint64(time.Now().UnixNano())
	for i := range cast {
		cast[i] = actor{st: st, id: i, seed: random(&seed)}
	}
	muster(c, actOn, cast)
	c.end()
	if int(st.serial.Load()) != st.rounds {
		t.Errorf("%d were the last to arrive, of %d rounds", st.serial.Load(), st.rounds)
	}
	together := 0
	for r := range st.rounds {
		var calls []call
		for a := range actors {
			calls = append(calls, st.calls[r][a][:st.n[r][a]]...)
		}
		for i, a := range calls {
			for _, b := range calls[:i] {
				if a.actor != b.actor && a.begin < b.end && b.begin < a.end {
					together++
				}
			}
		}
		if !linear(kind, calls) {
			var b strings.Builder
			for _, c := range calls {
				fmt.Fprintln(&b, c)
			}
			t.Fatalf("round %d:\n%s", r, b.String())
		}
	}
	if together == 0 && st.rounds >= 100 { // by chance, where there are few
		t.Error("no two calls were made at the same time")
	}
}

// TestCheckerFindsWhatIsWrong: histories that no order explains.
func TestCheckerFindsWhatIsWrong(t *testing.T) {
	for _, h := range []struct {
		kind  int
		calls []call
	}{
		{forMutex, []call{{1, 2, callLock, true, 1, 0}, {3, 4, callLock, true, 1, 1}, {5, 6, callUnlock, false, 1, 0}, {7, 8, callUnlock, false, 1, 1}}},
		{forMutex, []call{{1, 2, callTry, false, 1, 0}}},
		{forWrite, []call{{1, 2, callLock, true, 1, 0}, {3, 6, callRLock, true, 1, 1}, {7, 8, callUnlock, false, 1, 0}, {9, 10, callRUnlock, false, 1, 1}}},
		{forSemaphore, []call{{1, 2, callLock, true, 2, 0}, {3, 4, callTry, true, 1, 1}}},
		{forEvent, []call{{1, 2, callSet, false, 1, 0}, {3, 4, callIsSet, false, 1, 1}}},
		{forGroup, []call{{1, 2, callAdd, true, 1, 0}, {3, 4, callWait, true, 1, 1}, {5, 6, callAdd, true, -1, 0}}},
	} {
		if linear(h.kind, h.calls) {
			t.Error(h.calls)
		}
	}
}
