package sched_test

import (
	"flag"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
	"lwprt/tls"
)

var (
	stressSeed = flag.Uint64("sched.seed", 0, "seed of TestStress, 0 for a new one each time")
	stressKey  = mustKey(tls.NewKey[uint64](nil))
)

func mustKey(k tls.Key[uint64], err error) tls.Key[uint64] {
	if err != nil {
		panic(err)
	}
	return k
}

// A member is one fiber of a stress run, and what the model knows of it. It is
// what the fiber gets as its argument.
type member struct {
	seed  uint64
	depth int
	began atomic.Uint32
	ended atomic.Uint32 // left its function, in whatever way
	how   uint32        // what it is to end by; written before its end
	woken atomic.Uint32 // it has woken other
	kept  bool          // it will be joined, and so may fault: those of detached fibers go to standard error
	pin   int           // the worker that it is pinned to, or 0
	other sched.Fiber   // whom to wake
}

// How a member ends.
const (
	byReturn = iota
	byExit
	byFault
)

// A stress is a run: members are dealt out in order and never twice.
type stress struct {
	workers int
	members []member
	next    atomic.Int64
	wrong   [numWrongs]atomic.Int64
}

// What can go wrong.
const (
	wrongJoin  = iota // a Join that returned something else than the model
	wrongLocal        // a value of another fiber
	wrongSelf
	wrongWorker
	wrongSpawn
	wrongDetach
	wrongUnpark
	wrongBlocking
	numWrongs
)

var wrongs = [numWrongs]string{"Join", "a local", "Current", "the worker", "a spawn", "Detach", "Unpark", "Blocking"}

// random is splitmix64.
func random(seed *uint64) uint64 {
	*seed += 0x9e3779b97f4a7c15
	x := *seed
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// deal returns a member that has not begun, or nil.
func (r *stress) deal(depth int, seed uint64) *member {
	i := r.next.Add(1) - 1
	if i >= int64(len(r.members)) {
		return nil
	}
	m := &r.members[i]
	m.seed, m.depth = seed, depth
	m.kept = seed%2 == 0
	return m
}

// attr returns random attributes.
func (r *stress) attr(x uint64) (a sched.Attr) {
	if x%8 == 0 {
		a.Worker = int(x/8%uint64(r.workers)) + 1
	}
	if x%16 < 4 {
		a.StackSize = 4096 << (x / 16 % 4)
	}
	if x%5 == 0 {
		a.Name = "stress"
	}
	return a
}

// live is what a member does.
func live(m *member) {
	r := theRun
	m.began.Add(1)
	x := m.seed
	self := sched.Current()
	var kids [4]*member
	var handles [4]sched.Fiber
	n := 0
	for range random(&x)%12 + 1 {
		switch op := random(&x) % 13; op {
		case 0, 1, 2: // spawn
			if m.depth == 0 || n == len(kids) {
				break
			}
			k := r.deal(m.depth-1, random(&x))
			if k == nil {
				break
			}
			a := sched.Attr{}
			if op != 0 {
				a = r.attr(random(&x))
			}
			k.pin = a.Worker
			var f sched.Fiber
			var err error
			if op == 0 {
				f, err = sched.Go(live, k)
			} else {
				f, err = sched.GoAttr(live, k, a)
			}
			if err != nil {
				r.wrong[wrongSpawn].Add(1)
				break
			}
			kids[n], handles[n] = k, f
			n++
		case 3, 4:
			sched.Yield()
		case 5:
			sched.Sleep(time.Duration(random(&x) % 100_000))
		case 6: // unpark a child, which may or may not park
			if n > 0 {
				i := random(&x) % uint64(n)
				if handles[i].Unpark() != nil {
					r.wrong[wrongUnpark].Add(1)
				}
			}
		case 7: // a child that wakes the parent
			k := r.deal(0, 0)
			if k == nil {
				break
			}
			k.other = self
			f, err := sched.GoAttr(wakeOther, k, r.attr(random(&x)))
			if err != nil {
				r.wrong[wrongSpawn].Add(1)
				break
			}
			if random(&x)%2 == 0 {
				for k.woken.Load() == 0 {
					sched.Park("a child")
				}
			} else {
				for k.woken.Load() == 0 {
					sched.ParkFor("a child, for a time", time.Duration(random(&x)%50_000))
				}
			}
			r.joins(k, f)
		case 8:
			if sched.Blocking(block, m) != nil {
				r.wrong[wrongBlocking].Add(1)
			}
		case 9: // a local lasts
			if v, ok := sched.Get(stressKey); ok && v != self.Serial() {
				r.wrong[wrongLocal].Add(1)
			}
			if sched.Set(stressKey, self.Serial()) != nil {
				r.wrong[wrongLocal].Add(1)
			}
		case 10:
			if n > 0 {
				if _, err := sched.YieldTo(handles[random(&x)%uint64(n)]); err != nil {
					r.wrong[wrongUnpark].Add(1)
				}
			}
		case 11, 12: // let go of a child
			if n > 0 {
				n--
				if op == 11 && !kids[n].kept {
					if handles[n].Detach() != nil {
						r.wrong[wrongDetach].Add(1)
					}
				} else {
					r.joins(kids[n], handles[n])
				}
			}
		}
		if sched.Current() != self {
			r.wrong[wrongSelf].Add(1)
		}
		if m.pin != 0 && sched.OnWorker() != m.pin {
			r.wrong[wrongWorker].Add(1)
		}
	}
	for n > 0 {
		n--
		r.joins(kids[n], handles[n])
	}
	if v, ok := sched.Get(stressKey); ok && v != self.Serial() {
		r.wrong[wrongLocal].Add(1)
	}
	switch random(&x) % 16 {
	case 0:
		m.how = byExit
		m.ended.Add(1)
		sched.Exit()
	case 1:
		if m.kept {
			m.how = byFault
			m.ended.Add(1)
			*nowhere = 1
		}
	}
	m.how = byReturn
	m.ended.Add(1)
}

func block(*member) { lwp.Yield() }

// wakeOther wakes the fiber that has spawned it.
func wakeOther(m *member) {
	m.began.Add(1)
	if m.seed%2 == 0 {
		sched.Yield()
	}
	m.woken.Store(1)
	if m.other.Unpark() != nil {
		theRun.wrong[wrongUnpark].Add(1)
	}
	m.ended.Add(1)
}

// joins joins k, once.
func (r *stress) joins(k *member, f sched.Fiber) {
	r.joined(k, f.Join())
	if f.Join() == nil {
		r.wrong[wrongJoin].Add(1)
	}
}

// theRun is a package variable, for the members; one run at a time.
var theRun *stress

// TestStress runs random trees of fibers, spawned from goroutines and from
// fibers, which do everything that a fiber can do, and whose every end the
// model knows of.
func TestStress(t *testing.T) {
	for _, workers := range []int{1, 2, 8} {
		t.Run("workers="+strconv.Itoa(workers), func(t *testing.T) { stressOn(t, workers) })
	}
}

func stressOn(t *testing.T, workers int) {
	s := begin(t, workers)
	lwptest.Collect(t)
	seed := *stressSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again, as far as the kernel schedules alike: -run '%s' -sched.seed %d", t.Name(), seed)
		}
	})
	length := time.Duration(lwptest.Count(4000, 250)) * time.Millisecond
	if d, err := time.ParseDuration(os.Getenv("LWPRT_SCHED_STRESS")); err == nil {
		length = d
	}
	rounds := 0
	for end := time.Now().Add(length); ; rounds++ {
		r := &stress{workers: workers, members: make([]member, 5000)}
		theRun = r
		x := seed + uint64(rounds)
		var wg sync.WaitGroup
		for range 3 {
			mine := random(&x)
			wg.Go(func() {
				for {
					m := r.deal(int(random(&mine)%7), random(&mine))
					if m == nil {
						return
					}
					a := r.attr(random(&mine))
					m.pin = a.Worker
					f, err := sched.SpawnAttr(s, live, m, a)
					if err != nil {
						r.wrong[wrongSpawn].Add(1)
						return
					}
					for random(&mine)%4 == 0 {
						if f.Unpark() != nil {
							r.wrong[wrongUnpark].Add(1)
						}
					}
					for random(&mine)%4 == 0 {
						err := f.JoinFor(time.Duration(random(&mine) % 50_000))
						if err != sched.ErrTimeout {
							r.joined(m, err)
							f = sched.Fiber{}
							break
						}
					}
					switch {
					case f == sched.Fiber{}:
					case !m.kept && random(&mine)%2 == 0:
						if f.Detach() != nil {
							r.wrong[wrongDetach].Add(1)
						}
					default:
						r.joined(m, f.Join())
					}
				}
			})
		}
		lwptest.Within(t, "a round", func() {
			wg.Wait()
			if err := s.Wait(); err != nil {
				t.Error("Wait: ", err)
			}
		})
		r.check(t, s, seed+uint64(rounds))
		if t.Failed() || time.Now().After(end) {
			break
		}
		s.Trim()
	}
	t.Logf("%d rounds, %+v", rounds+1, s.Stats())
}

// joined compares what a Join of k has returned with the model.
func (r *stress) joined(k *member, err error) {
	_, faulted := err.(*lwp.Fault)
	if k.began.Load() != 1 || k.ended.Load() != 1 || faulted != (k.how == byFault) || err != nil && !faulted {
		r.wrong[wrongJoin].Add(1)
	}
}

// check looks at every member after all have ended.
func (r *stress) check(t *testing.T, s *sched.Scheduler, seed uint64) {
	t.Helper()
	dealt := min(int(r.next.Load()), len(r.members))
	for i := range dealt {
		if m := &r.members[i]; m.began.Load() != 1 || m.ended.Load() != 1 {
			t.Errorf("member %d began %d times and ended %d times", i, m.began.Load(), m.ended.Load())
		}
	}
	for i := range r.wrong {
		if n := r.wrong[i].Load(); n != 0 {
			t.Errorf("%s was wrong %d times", wrongs[i], n)
		}
	}
	lwptest.Eventually(t, "the slots to be free", func() bool { return s.Slots() == 0 })
	if !s.Consistent() {
		t.Error("the list of idle workers is damaged")
	}
	if t.Failed() {
		t.Logf("the seed of the round is %d", seed)
	}
}
