// Command vfork shows what vfork(2) is: the child runs in the parent's memory,
// and the parent, the one thread that called, sleeps until the child is done
// with it.
package main

import (
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
)

const nap = 50 * time.Millisecond

// child sleeps, and then writes to memory that is the parent's.
func child(n *int) int {
	lwp.Sleep(nap)
	*n = 42
	return 0
}

// quick ends at once.
func quick(*int) int { return 0 }

// made makes a child in one of the two ways, and says how long the call took,
// and what the variable is when it returns.
func made(how func(fn func(*int) int, n *int) (lwp.Process, error), fn func(*int) int) (took time.Duration, n int, err error) {
	began := time.Now()
	p, err := how(fn, &n)
	took = time.Since(began)
	if err != nil {
		return took, n, err
	}
	seen := n
	_, err = p.Wait()
	return took, seen, err
}

func byFork(fn func(*int) int, n *int) (lwp.Process, error) {
	return lwp.StartProcess(fn, n, lwp.ProcessAttr{})
}

func byVFork(fn func(*int) int, n *int) (lwp.Process, error) {
	return lwp.VFork(fn, n, lwp.ProcessAttr{})
}

func run() error {
	fmt.Printf("A child sleeps for %v, and then sets a variable to 42.\n\n", nap)
	took, n, err := made(byFork, child)
	if err != nil {
		return err
	}
	fmt.Printf("fork:  the call took %7.3f ms; the variable is %d: the child has a copy\n", ms(took), n)

	// Another goroutine counts meanwhile: only the calling thread sleeps.
	var stop atomic.Bool
	var ticks atomic.Int64
	go func() {
		for !stop.Load() {
			time.Sleep(time.Millisecond)
			ticks.Add(1)
		}
	}()
	before := ticks.Load()
	took, n, err = made(byVFork, child)
	during := ticks.Load() - before
	stop.Store(true)
	if err != nil {
		return err
	}
	fmt.Printf("vfork: the call took %7.3f ms; the variable is %d: there is one memory\n", ms(took), n)
	fmt.Printf("       meanwhile another goroutine has counted to %d: it did not sleep\n", during)
	if n != 42 {
		fmt.Print("\nThis program needs vfork(2) to share memory. Linux does; qemu-user makes it a fork.\n")
		return nil
	}

	const size = 128 << 20
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	for i := 0; i < size; i += 4096 {
		mem[i] = 1
	}
	fmt.Printf("\nWith %d MiB of memory in use, children that end at once; the call alone, best of 10:\n", size>>20)
	for _, c := range []struct {
		name string
		how  func(func(*int) int, *int) (lwp.Process, error)
	}{{"fork", byFork}, {"vfork", byVFork}} {
		best := time.Hour
		for range 10 {
			took, _, err := made(c.how, quick)
			if err != nil {
				return err
			}
			best = min(best, took)
		}
		fmt.Printf("%-6s %8.3f ms\n", c.name+":", ms(best))
	}
	fmt.Print("fork copies a page table entry for each page; vfork copies none.\n")
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func main() {
	if err := run(); err != nil {
		log.Fatal("vfork: ", err)
	}
}
