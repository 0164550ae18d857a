// Command boundedbuffer passes numbers from producers to consumers through a
// buffer of eight, made of a Mutex and two Conds, and made of three Semaphores.
package main

import (
	"fmt"
	"log"
	"time"

	"lwprt/sched"
)

const (
	size      = 8
	producers = 3
	consumers = 2
	each      = 20_000 // numbers that a producer makes
	total     = producers * each
)

// A ring is the memory of a buffer. It does not know of waiting.
type ring struct {
	slots       [size]int
	first, held int
	most        int
}

func (r *ring) put(v int) {
	if r.held == size {
		wrong.Set() // put into a full buffer
	}
	r.slots[(r.first+r.held)%size] = v
	r.held++
	r.most = max(r.most, r.held)
}

func (r *ring) get() int {
	if r.held == 0 {
		wrong.Set() // taken from an empty one
	}
	v := r.slots[r.first]
	r.first = (r.first + 1) % size
	r.held--
	return v
}

// wrong is set if a buffer is used as it must not be.
var wrong sched.Event

// A monitor is a buffer with a lock, and with a Cond for each thing to wait for.
type monitor struct {
	ring
	m        sched.Mutex
	notFull  sched.Cond
	notEmpty sched.Cond
	waits    int // for either
}

func (b *monitor) Put(v int) {
	b.m.Lock()
	for b.held == size {
		b.waits++
		b.notFull.Wait(&b.m)
	}
	b.put(v)
	b.notEmpty.Signal()
	b.m.Unlock()
}

func (b *monitor) Get() int {
	b.m.Lock()
	for b.held == 0 {
		b.waits++
		b.notEmpty.Wait(&b.m)
	}
	v := b.get()
	b.notFull.Signal()
	b.m.Unlock()
	return v
}

// A counted is a buffer whose semaphores count the free slots and the full ones;
// a third, of one permit, is its lock.
type counted struct {
	ring
	free, full, lock sched.Semaphore
}

func (b *counted) init() {
	b.free.Release(size)
	b.lock.Release(1)
}

func (b *counted) Put(v int) {
	b.free.Acquire(1)
	b.lock.Acquire(1)
	b.put(v)
	b.lock.Release(1)
	b.full.Release(1)
}

func (b *counted) Get() int {
	b.full.Acquire(1)
	b.lock.Acquire(1)
	v := b.get()
	b.lock.Release(1)
	b.free.Release(1)
	return v
}

// A worker is a producer or a consumer of one of the two.
type worker struct {
	m      *monitor
	c      *counted
	number int
	n, sum int
}

func (w *worker) put(v int) {
	if w.m != nil {
		w.m.Put(v)
	} else {
		w.c.Put(v)
	}
}

func (w *worker) get() int {
	if w.m != nil {
		return w.m.Get()
	}
	return w.c.Get()
}

// produce puts its own share of the numbers 1 to total.
func produce(w *worker) {
	for i := range each {
		v := i*producers + w.number + 1
		w.put(v)
		w.n++
		w.sum += v
	}
}

// consume takes numbers until it gets the zero.
func consume(w *worker) {
	for v := w.get(); v != 0; v = w.get() {
		w.n++
		w.sum += v
	}
}

// run passes all numbers through a buffer, and checks that each came out once.
func run(m *monitor, c *counted) {
	s, err := sched.New(sched.Config{Workers: 2})
	check(err)
	var ps [producers]worker
	var cs [consumers]worker
	var fs [producers]sched.Fiber
	start := time.Now()
	for i := range cs {
		cs[i] = worker{m: m, c: c}
		_, err := sched.SpawnAttr(s, consume, &cs[i], sched.Attr{Name: "consumer", Detached: true})
		check(err)
	}
	for i := range ps {
		ps[i] = worker{m: m, c: c, number: i}
		fs[i], err = sched.SpawnAttr(s, produce, &ps[i], sched.Attr{Name: "producer"})
		check(err)
	}
	s.Hold() // from here on this goroutine is one of those who put something in
	for _, f := range fs {
		check(f.Join())
	}
	last := worker{m: m, c: c}
	for range consumers {
		last.put(0)
	}
	s.Release()
	check(s.Wait())
	check(s.Close())
	n, sum := 0, 0
	for _, w := range cs {
		n += w.n
		sum += w.sum
	}
	if n != total || sum != total*(total+1)/2 || wrong.IsSet() {
		log.Fatalf("boundedbuffer: %d numbers came out, with the sum %d", n, sum)
	}
	fmt.Printf("   %d numbers in, %d out, the sum %d is right. It took %v.\n",
		total, n, sum, time.Since(start).Round(time.Millisecond))
}

func main() {
	fmt.Printf("%d producers and %d consumers, all green threads on two workers, and a buffer of %d.\n\n", producers, consumers, size)

	fmt.Print("1. A Mutex guards the buffer, and two Conds say that it is not full, or not empty:\n\n")
	m := new(monitor)
	run(m, nil)
	fmt.Printf("   There were at most %d in it, and %d waits.\n", m.most, m.waits)
	fmt.Print(`
   A condition is looked at in a loop: between the Signal and the return of Wait somebody
   else can have had the lock, and the slot. Any condition can be waited for this way.

2. Semaphores count the free slots and the full ones:

`)
	c := new(counted)
	c.init()
	run(nil, c)
	fmt.Printf("   There were at most %d in it.\n", c.most)
	fmt.Print(`
   No loop: who has a permit has a slot. But only what can be counted can be waited for,
   and the order matters: who takes the lock first, and then waits for a slot, keeps
   everybody from making one free.

The last thing put in, a zero for each consumer, came from the goroutine of main: the
same buffers serve green threads, kernel threads and goroutines.
`)
}

func check(err error) {
	if err != nil {
		log.Fatal("boundedbuffer: ", err)
	}
}
