// Command race has kernel threads add to one counter: without care, which loses
// additions, then under a mutex, then with an atomic operation.
package main

import (
	"fmt"
	"log"
	"runtime"
	"sync/atomic"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
)

const (
	threads  = 4
	each     = 250_000 // additions per thread
	want     = threads * each
	patience = 2 * time.Second // for a lost addition
)

// shared is what the threads see: they were made with CLONE_VM, so the address
// that main passes means the same memory on all of them.
type shared struct {
	gate  futex.Barrier // lets all begin at once
	mutex futex.Mutex
	n     uint64
}

func plain(s *shared) {
	s.gate.Wait()
	for range each {
		s.n++
	}
}

func locked(s *shared) {
	s.gate.Wait()
	for range each {
		s.mutex.Lock()
		s.n++
		s.mutex.Unlock()
	}
}

func atomically(s *shared) {
	s.gate.Wait()
	for range each {
		atomic.AddUint64(&s.n, 1)
	}
}

// count runs body on all threads and returns what they have counted.
func count(body func(*shared)) (uint64, time.Duration) {
	s := new(shared)
	s.gate.Init(threads)
	begin := time.Now()
	var ts [threads]lwp.Thread
	for i := range ts {
		var err error
		if ts[i], err = lwp.Start(body, s); err != nil {
			log.Fatal(err) // ends the process, and the threads at the gate with it
		}
	}
	for _, t := range ts {
		if err := t.Join(); err != nil {
			log.Fatal(err)
		}
	}
	// An ordinary read: the end of each thread synchronizes before its Join returns.
	return s.n, time.Since(begin)
}

func report(n uint64, took time.Duration) {
	fmt.Printf("   counted %d, lost %d, in %v\n\n", n, want-n, took.Round(10*time.Microsecond))
}

func main() {
	fmt.Printf("%d threads add 1 to one counter %d times each; %d is right.\n\n", threads, each, want)

	fmt.Println("1. n++ and nothing else")
	var n uint64
	var took time.Duration
	tries := 0
	for begin := time.Now(); tries == 0 || n == want && time.Since(begin) < patience; tries++ {
		n, took = count(plain)
	}
	report(n, took)
	if n == want {
		fmt.Printf("   No addition was lost in %d tries.\n", tries)
		if runtime.NumCPU() == 1 {
			fmt.Print("   This process may use one CPU only. Its threads take turns, and a turn seldom\n" +
				"   ends inside n++; on amd64, where n++ can be one instruction, it never does.\n" +
				"   Being lucky is not being correct: on two CPUs this program loses additions.\n\n")
		} else {
			fmt.Print("   That is luck: the threads hardly ran at the same time. Try again.\n\n")
		}
	} else {
		fmt.Print("   n++ is three steps: read n, add, write n. Two threads that read the same\n" +
			"   value both write the same successor, and one of the two additions is gone.\n\n")
	}

	fmt.Println("2. n++ between Lock and Unlock of a futex.Mutex")
	withMutex, took := count(locked)
	report(withMutex, took)
	fmt.Print("   One thread at a time does the three steps. While nobody has to wait, Lock and\n" +
		"   Unlock are one atomic operation each, without the kernel; who has to wait\n" +
		"   asks the kernel, futex(2), to sleep until the word of the mutex changes.\n\n")

	fmt.Println("3. atomic.AddUint64(&n, 1)")
	withAtomic, took := count(atomically)
	report(withAtomic, took)
	fmt.Print("   The CPU does the three steps as one that no other CPU can come between. That is\n" +
		"   enough for one word; a mutex guards as many as you like.\n")

	if withMutex != want || withAtomic != want {
		log.Fatal("race: a cure has lost additions")
	}
}
