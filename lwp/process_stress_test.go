package lwp_test

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// TestForksOfABusyProgram makes children by fork and by vfork in a program in
// which everything else goes on: 8 busy goroutines, a collector that never
// rests, 4 threads. Every child must return its own code, and nothing be left.
//
// With LWPRT_STRESS=full in the environment it makes 50 000 of each, which
// takes some minutes.
func TestForksOfABusyProgram(t *testing.T) {
	full := os.Getenv("LWPRT_STRESS") == "full"
	if !full && lwptest.MustPass(t, nil) { // a small program: the price of a fork is that of its memory
		return
	}
	begin(t)
	n := 1500
	if testing.Short() {
		n = 300
	}
	if full {
		n = 50_000
	} else if lwptest.Emulated() {
		n = 60
	}
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 8 {
		busy.Go(func() {
			var keep [][]byte
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if keep = append(keep, make([]byte, 100+i%1000)); len(keep) > 100 {
					keep = nil
				}
				if i%64 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	busy.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	var ticks [4]spinner
	var threads [4]lwp.Thread
	for i := range threads {
		threads[i] = start(t, tick, &ticks[i])
	}

	var wrong atomic.Int64
	make := func(how string, i int) {
		code := i % 251
		var p lwp.Process
		var err error
		switch how {
		case "fork":
			p, err = lwp.Fork(lwp.ProcessAttr{})
			if err == nil && p.IsChild() {
				lwp.ExitProcess(code)
			}
		case "process":
			p, err = lwp.StartProcess(answer, &code, lwp.ProcessAttr{})
		case "vfork":
			p, err = lwp.VFork(answer, &code, lwp.ProcessAttr{})
		}
		if err != nil {
			t.Errorf("%s %d: %v", how, i, err)
			wrong.Add(1)
			return
		}
		s, err := p.Wait()
		if err != nil || s.ExitCode() != code {
			t.Errorf("%s %d ended with %v, %v; want %d", how, i, s, err, code)
			wrong.Add(1)
		}
	}
	for _, how := range []string{"fork", "process", "vfork"} {
		n := n
		if how == "process" {
			n /= 10 // the same call, but for the stack
		}
		began := time.Now()
		var next atomic.Int64
		var makers sync.WaitGroup
		for range 2 {
			makers.Go(func() {
				for i := int(next.Add(1)); i <= n && wrong.Load() < 5; i = int(next.Add(1)) {
					make(how, i)
				}
			})
		}
		makers.Wait()
		t.Logf("%d by %s, %v each", n, how, time.Since(began)/time.Duration(n))
	}
	close(stop)
	busy.Wait()
	for i := range threads {
		if ticks[i].n.Load() == 0 {
			t.Errorf("thread %d has not run", i)
		}
		ticks[i].stop.Store(true)
		join(t, threads[i])
	}
	noChildren(t)
	if got := lwp.Processes(); got != 0 {
		t.Errorf("%d records of processes are in use", got)
	}
}
