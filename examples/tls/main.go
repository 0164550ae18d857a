// Command tls gives every thread its own value of one variable, and has
// destructors run when threads end.
package main

import (
	"fmt"
	"log"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/tls"
)

// Keys are made on goroutines, once; every thread then has a value of its own for each.
var (
	counter              = key[int](nil)
	first, second, third = key(destroy), key(destroy), key(destroy)
	stubborn             tls.Key[int] // made by main: its destructor refers to it
)

func key[T any](destructor func(*T)) tls.Key[T] {
	k, err := tls.NewKey(destructor)
	if err != nil {
		log.Fatal(err)
	}
	return k
}

// Part 1: one key, as many values as threads.

type counting struct {
	gate  *futex.Barrier
	n     int // how often to count
	isSet bool
	block uintptr
	total int
}

func count(c *counting) {
	_, c.isSet = counter.Get()
	c.block = tls.Current().Self
	counter.Set(0)
	c.gate.Wait()
	for range c.n {
		*counter.Ptr()++ // no lock: nobody else has this one
	}
	c.total, _ = counter.Get()
}

func values() {
	fmt.Println("1. One key, one value in every thread")
	gate := futex.NewBarrier(3)
	var jobs [3]counting
	var ts [3]lwp.Thread
	for i := range jobs {
		jobs[i] = counting{gate: gate, n: (i + 1) * 100_000}
		ts[i] = start(count, &jobs[i])
	}
	for i := range jobs {
		join(ts[i])
		c := &jobs[i]
		fmt.Printf("   thread %d: set at first: %t, control block at %#x, counted to %d\n", i+1, c.isSet, c.block, c.total)
	}
	_, ok := counter.Get()
	fmt.Printf("   main: set on a goroutine: %t\n\n", ok)
	fmt.Print("   The three ran the same code at the same time, without a lock. What differed is\n" +
		"   the thread pointer, a register of its own in each thread: clone(2) with\n" +
		"   CLONE_SETTLS sets it to the thread's control block, in which the values lie.\n" +
		"   Goroutines move between threads, so they have no values here.\n\n")
}

// Part 2: destructors, the key set last first.

type tag struct {
	thread string
	key    string
}

func destroy(t *tag) {
	var l lwp.Line
	l.Str("   ").Str(t.thread).Str(": destructor of ").Str(t.key).Print()
}

func forwards(*struct{}) {
	first.Set(tag{"thread A", "first"})
	second.Set(tag{"thread A", "second"})
	third.Set(tag{"thread A", "third"})
}

func backwards(*struct{}) {
	third.Set(tag{"thread B", "third"})
	second.Set(tag{"thread B", "second"})
	first.Set(tag{"thread B", "first"})
}

func partly(*struct{}) {
	second.Set(tag{"thread C", "second"})
	lwp.Println("   thread C: leaves by lwp.Exit")
	lwp.Exit()
}

func destructors() {
	fmt.Println("2. Destructors run when a thread ends, on that thread")
	for _, fn := range []func(*struct{}){forwards, backwards, partly} {
		join(start(fn, nil)) // one after the other, to keep the lines apart
	}
	fmt.Print("\n   The key set last goes first, as with defer: what was built on top of\n" +
		"   something is taken down before it. A key that was not set has nothing to\n" +
		"   destroy.\n\n")
}

// Part 3: a destructor that sets its key again.

func refuse(n *int) {
	var l lwp.Line
	l.Str("   pass ").Int(int64(*n)).Str(": destroyed, and set again").Print()
	stubborn.Set(*n + 1)
}

func setStubborn(*struct{}) { stubborn.Set(1) }

func passes() {
	fmt.Println("3. A destructor may set keys again: they get another pass")
	stubborn = key(refuse)
	join(start(setStubborn, nil))
	fmt.Printf("\n   After %d passes what is still set is dropped, so that a thread ends in any\n"+
		"   case. POSIX has the same rule (PTHREAD_DESTRUCTOR_ITERATIONS).\n", tls.DestructorPasses)
}

func start[T any](fn func(*T), arg *T) lwp.Thread {
	t, err := lwp.Start(fn, arg)
	if err != nil {
		log.Fatal(err)
	}
	return t
}

func join(t lwp.Thread) {
	if err := t.Join(); err != nil {
		log.Fatal(err)
	}
}

func main() {
	values()
	destructors()
	passes()
}
