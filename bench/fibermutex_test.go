package bench

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"lwprt/sched"
)

// fiberLockRows are rows of BenchmarkMutex: sched.Mutex on green threads, and
// sync.Mutex on goroutines that do the same.
//
// op=yield is to lock, to let others run with the lock held, and to unlock, so
// that there are always some who wait; workers is how many CPUs they have.
// share-% is what the one who had the lock least often got, of an equal share.
func fiberLockRows() []row {
	rows := []row{
		{"impl=fiber/contend=0", aloneFiber},
		{"impl=fiber/workers=2/contend=2", func(b *testing.B) error { return contendFibers(b, 2, 2, rivalFiber) }},
	}
	for _, workers := range []int{1, 2} {
		for _, n := range []int{2, 100} {
			rows = append(rows,
				row{fmt.Sprintf("impl=fiber/op=yield/workers=%d/contend=%d", workers, n), func(b *testing.B) error {
					return contendFibers(b, workers, n, yieldingFiber)
				}},
				row{fmt.Sprintf("impl=sync/op=yield/workers=%d/contend=%d", workers, n), withProcs(workers, func(b *testing.B) error {
					return contendGoroutines(b, n)
				})})
		}
	}
	return rows
}

// rivals are those who want one lock.
type rivals struct {
	fiber sched.Mutex
	sync  sync.Mutex
	count int
	limit int
	last  *rival
	turns int
	each  []rival
}

type rival struct {
	x   *rivals
	own int
	_   [48]byte
}

func aloneFiber(b *testing.B) error {
	x := newRivals(b.N, 0)
	if err := onFibers(b, 1, aloneOnFiber, x); err != nil {
		return err
	}
	return did(x.count, b.N)
}

func aloneOnFiber(x *rivals) {
	n := 0
	for range x.limit {
		x.fiber.Lock()
		n++
		x.fiber.Unlock()
	}
	x.count = n
}

// step is what the lock guards; it reports false when all is done.
func (r *rival) step() bool {
	x := r.x
	if x.count == x.limit {
		return false
	}
	x.count++
	if x.last != r {
		x.last = r
		x.turns++
	}
	r.own++
	return true
}

func rivalFiber(r *rival) {
	for more := true; more; {
		r.x.fiber.Lock()
		more = r.step()
		r.x.fiber.Unlock()
	}
}

func yieldingFiber(r *rival) {
	for more := true; more; {
		r.x.fiber.Lock()
		more = r.step()
		sched.Yield()
		r.x.fiber.Unlock()
	}
}

func contendFibers(b *testing.B, workers, n int, fn func(*rival)) error {
	if err := needCPUs(workers); err != nil {
		return err
	}
	x := newRivals(b.N, n)
	s, err := sched.New(sched.Config{Workers: workers, StackSize: fiberStack})
	if err != nil {
		return err
	}
	defer s.Close()
	x.fiber.Lock()
	for i := range x.each {
		if _, err = sched.SpawnAttr(s, fn, &x.each[i], sched.Attr{Detached: true}); err != nil {
			x.limit = 0
			break
		}
	}
	b.ResetTimer()
	x.fiber.Unlock()
	if e := s.Wait(); err == nil {
		err = e
	}
	b.StopTimer()
	if err != nil {
		return err
	}
	return x.conclude(b)
}

func contendGoroutines(b *testing.B, n int) error {
	x := newRivals(b.N, n)
	var wg sync.WaitGroup
	x.sync.Lock()
	for i := range x.each {
		r := &x.each[i]
		wg.Go(func() {
			for more := true; more; {
				x.sync.Lock()
				more = r.step()
				runtime.Gosched()
				x.sync.Unlock()
			}
		})
	}
	b.ResetTimer()
	x.sync.Unlock()
	wg.Wait()
	b.StopTimer()
	return x.conclude(b)
}

func newRivals(limit, n int) *rivals {
	x := &rivals{limit: limit, each: make([]rival, n)}
	for i := range x.each {
		x.each[i].x = x
	}
	return x
}

// conclude reports how the lock was shared, and compares the counts.
func (x *rivals) conclude(b *testing.B) error {
	sum, least := 0, x.count
	for i := range x.each {
		sum += x.each[i].own
		least = min(least, x.each[i].own)
	}
	b.ReportMetric(float64(x.count)/float64(max(x.turns, 1)), "ops/turn")
	b.ReportMetric(float64(least*len(x.each))/float64(max(x.count, 1))*100, "share-%")
	if err := did(x.count, b.N); err != nil {
		return err
	}
	return did(sum, b.N)
}
