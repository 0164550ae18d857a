package bench

import (
	"errors"
	"testing"

	"lwprt/futex"
	"lwprt/lwp"
)

// BenchmarkOwnedMutex: one op is to lock and to unlock, on our threads, as in
// BenchmarkMutex with impl=futexlwp, which is futex here.
//
//   - futex: futex.Mutex, which has no owner, and leaves a free lock to whoever is
//     quick.
//   - pi: futex.PIMutex. Where two want it the kernel hands it over, at every
//     turn.
//   - robust: futex.RobustMutex, which keeps the owner's list for the kernel.
func BenchmarkOwnedMutex(b *testing.B) { compare(b, ownedRows) }

var ownedRows = []row{
	{"impl=futex/contend=0", func(b *testing.B) error { return onThread(b, aloneOnThread) }},
	{"impl=pi/contend=0", func(b *testing.B) error { return onThread(b, alonePI) }},
	{"impl=robust/contend=0", func(b *testing.B) error { return robustly(func() error { return onThread(b, aloneRobust) }) }},
	{"impl=futex/contend=2", contendOnThreads},
	{"impl=pi/contend=2", func(b *testing.B) error { return contendOwned(b, contendPI) }},
	{"impl=robust/contend=2", func(b *testing.B) error {
		return robustly(func() error { return contendOwned(b, contendRobust) })
	}},
}

// robustly runs a row where the kernel has robust lists.
func robustly(body func() error) error {
	if _, err := futex.GetRobustList(0); err != nil {
		return skip("no robust lists: " + err.Error())
	}
	return body()
}

func alonePI(j *job) {
	var x struct {
		mu futex.PIMutex
		n  int
	}
	j.pass()
	for range j.n {
		if x.mu.Lock() == nil {
			x.n++
			x.mu.Unlock()
		}
	}
	j.good = x.n
}

func aloneRobust(j *job) {
	var x struct {
		mu futex.RobustMutex
		n  int
	}
	j.pass()
	for range j.n {
		if x.mu.Lock() == nil {
			x.n++
			x.mu.Unlock()
		}
	}
	j.good = x.n
}

// owned is contended for the locks with an owner.
type owned struct {
	pi     futex.PIMutex
	robust futex.RobustMutex
	contended
}

// An ownedContender is one of the two, with its own count.
type ownedContender struct {
	x       *owned
	id, own int
	_       [64]byte
}

func contendPI(c *ownedContender) {
	c.x.pass()
	own := 0
	for more := true; more && c.x.pi.Lock() == nil; {
		if more = c.x.step(c.id); more {
			own++
		}
		c.x.pi.Unlock()
	}
	c.own = own
}

func contendRobust(c *ownedContender) {
	c.x.pass()
	own := 0
	for more := true; more && c.x.robust.Lock() == nil; {
		if more = c.x.step(c.id); more {
			own++
		}
		c.x.robust.Unlock()
	}
	c.own = own
}

func contendOwned(b *testing.B, fn func(*ownedContender)) error {
	if err := twoCPUs(); err != nil {
		return err
	}
	x := &owned{}
	x.prepare(b.N)
	var two [2]ownedContender
	var threads []lwp.Thread
	var failed error
	for i := range two {
		two[i].x, two[i].id = x, i+1
		t, err := lwp.Start(fn, &two[i])
		if err != nil {
			failed = err
			break
		}
		threads = append(threads, t)
	}
	x.wait(uint32(len(threads)))
	b.ResetTimer()
	x.release()
	for _, t := range threads {
		failed = errors.Join(failed, t.Join())
	}
	b.StopTimer()
	if failed != nil {
		return failed
	}
	for i := range two {
		x.each[i].own = two[i].own
	}
	return x.conclude(b)
}
