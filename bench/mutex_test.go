package bench

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"lwprt/futex"
	"lwprt/lwp"
)

// BenchmarkMutex: one op is to lock and to unlock. What the lock protects is a
// counter, compared in the end with what each contender has counted for itself.
//
//   - futex: futex.Mutex on goroutines. A goroutine that sleeps takes its
//     kernel thread with it.
//   - futexlwp: the same on our threads.
//   - sync: sync.Mutex on goroutines. One that sleeps leaves its thread to
//     others; it cannot be used on our threads.
//   - pthread: pthread_mutex_t of the default kind, in C, in a process that
//     has more than one thread. It promises no fairness.
//   - fiber: sched.Mutex on green threads; see fiberLockRows.
//
// contend=0 is one caller. contend=2 is two, with nothing to do but lock and
// unlock; they are not bound to a CPU, and the time includes their end.
// ops/turn is how many ops one contender did before the other got the lock:
// the lower, the fairer, and the more often the lock has to change CPUs.
func BenchmarkMutex(b *testing.B) { compare(b, mutexRows); compare(b, fiberLockRows()) }

var mutexRows = []row{
	{"impl=futex/contend=0", aloneFutex},
	{"impl=futexlwp/contend=0", func(b *testing.B) error { return onThread(b, aloneOnThread) }},
	{"impl=sync/contend=0", aloneSync},
	{"impl=pthread/contend=0", inC("mutex-0")},
	{"impl=futex/contend=2", func(b *testing.B) error { return contend(b, &contended{}, contendFutex) }},
	{"impl=futexlwp/contend=2", contendOnThreads},
	{"impl=sync/contend=2", func(b *testing.B) error { return contend(b, &contended{}, contendSync) }},
	{"impl=pthread/contend=2", func(b *testing.B) error {
		if err := twoCPUs(); err != nil {
			return err
		}
		return inC("mutex-2")(b)
	}},
}

// The loops are written out for each type: through an interface or a type
// parameter the calls would not be inlined, as a user's are.

func aloneFutex(b *testing.B) error {
	var x struct {
		mu futex.Mutex
		n  int
	}
	for b.Loop() {
		x.mu.Lock()
		x.n++
		x.mu.Unlock()
	}
	return did(x.n, b.N)
}

func aloneSync(b *testing.B) error {
	var x struct {
		mu sync.Mutex
		n  int
	}
	for b.Loop() {
		x.mu.Lock()
		x.n++
		x.mu.Unlock()
	}
	return did(x.n, b.N)
}

func aloneOnThread(j *job) {
	var x struct {
		mu futex.Mutex
		n  int
	}
	j.pass()
	for range j.n {
		x.mu.Lock()
		x.n++
		x.mu.Unlock()
	}
	j.good = x.n
}

// protected is what a contended lock protects.
type protected struct {
	count, limit int
	last, turns  int
}

// step does contender id's part of one op, and says whether it was wanted.
func (p *protected) step(id int) bool {
	if p.count == p.limit {
		return false
	}
	p.count++
	if p.last != id {
		p.last = id
		p.turns++
	}
	return true
}

// contended has one lock per kind; a run uses one. Locks and counter lie
// together, as a user would have them.
type contended struct {
	futex futex.Mutex
	sync  sync.Mutex
	protected
	gate
	_    [64]byte
	each [2]contender
}

type contender struct {
	x       *contended
	id, own int
	_       [64]byte // not in the way of the other's
}

func contendFutex(c *contender) {
	x := c.x
	x.pass()
	own := 0
	for more := true; more; {
		x.futex.Lock()
		if more = x.step(c.id); more {
			own++
		}
		x.futex.Unlock()
	}
	c.own = own
}

func contendSync(c *contender) {
	x := c.x
	x.pass()
	own := 0
	for more := true; more; {
		x.sync.Lock()
		if more = x.step(c.id); more {
			own++
		}
		x.sync.Unlock()
	}
	c.own = own
}

func twoCPUs() error {
	if runtime.NumCPU() < 2 || runtime.GOMAXPROCS(0) < 2 {
		return skip("two contenders need two CPUs")
	}
	return nil
}

// prepare readies x for two contenders.
func (x *contended) prepare(n int) {
	x.limit = n
	for i := range x.each {
		x.each[i].x, x.each[i].id = x, i+1
	}
}

// conclude reports the turns, and compares the counts.
func (x *contended) conclude(b *testing.B) error {
	if x.turns == 0 {
		return fmt.Errorf("nobody had the lock")
	}
	b.ReportMetric(float64(x.count)/float64(x.turns), "ops/turn")
	if err := did(x.count, b.N); err != nil {
		return err
	}
	return did(x.each[0].own+x.each[1].own, b.N)
}

func contend(b *testing.B, x *contended, fn func(*contender)) error {
	if err := twoCPUs(); err != nil {
		return err
	}
	x.prepare(b.N)
	var wg sync.WaitGroup
	for i := range x.each {
		wg.Go(func() { fn(&x.each[i]) })
	}
	x.wait(2)
	b.ResetTimer()
	x.release()
	wg.Wait()
	b.StopTimer()
	return x.conclude(b)
}

func contendOnThreads(b *testing.B) error {
	if err := twoCPUs(); err != nil {
		return err
	}
	x := &contended{}
	x.prepare(b.N)
	var t [2]lwp.Thread
	for i := range t {
		var err error
		if t[i], err = lwp.Start(contendFutex, &x.each[i]); err != nil {
			if i > 0 {
				x.release()
				t[0].Join()
			}
			return err
		}
	}
	x.wait(2)
	b.ResetTimer()
	x.release()
	err := t[0].Join()
	if e := t[1].Join(); err == nil {
		err = e
	}
	b.StopTimer()
	if err != nil {
		return err
	}
	return x.conclude(b)
}
