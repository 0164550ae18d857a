package lwp_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// storm is what threads that start threads share.
type storm struct {
	n     int
	wrong atomic.Int64
	zero  int
	none  *storm
	ints  []int
	some  *int
	depth int
}

// Ways to die, one a function.
var deaths = [...]func(*storm){
	func(s *storm) { s.none.n = 1 },
	func(s *storm) { s.n = s.n / s.zero },
	func(s *storm) { s.n = s.ints[s.zero] },
	func(s *storm) { s.some = new(int) },
	func(s *storm) { panic("storm") },
	func(s *storm) { s.n = deepen(s.depth) },
	func(s *storm) { lwp.Abort("storm") },
	func(s *storm) { *(*int)(at(0x7654321000)) = 1 },
	func(s *storm) { runtime.Gosched() },
}

// leaks is lwptest.Leaks where the process is not an emulator, which keeps a
// quarter of a megabyte for every thread that has ended.
func leaks(t *testing.T) {
	t.Helper()
	if !lwptest.Emulated() {
		lwptest.Leaks(t)
	}
}

func TestFaultsInARowLeakNothing(t *testing.T) {
	lwptest.SkipRace(t)
	alive(t)
	leaks(t)
	before := len(tasks(t))
	n := lwptest.Count(100_000, 5_000) / 4
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			s := &storm{depth: 1}
			for i := range n {
				death := deaths[(g+i)%len(deaths)]
				th, err := lwp.StartAttr(death, s, lwp.Attr{StackSize: 8 << 10})
				if err != nil {
					t.Error(err)
					return
				}
				var f *lwp.Fault
				if err := th.Join(); !errors.As(err, &f) || f.Reason == lwp.Unknown {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	lwptest.Eventually(t, "the last tasks to leave /proc", func() bool { return len(tasks(t)) <= before+8 })
	alive(t)
}

// reaper starts threads that die and joins them, on a thread.
func reaper(s *storm) {
	for i := range s.n {
		th, err := lwp.StartAttr(deaths[i%len(deaths)], &storms[i%len(storms)], lwp.Attr{StackSize: 8 << 10})
		if err != nil {
			s.wrong.Add(1)
			return
		}
		f, ok := th.Join().(*lwp.Fault)
		if !ok || f.Thread != th || f.Reason == lwp.Unknown {
			s.wrong.Add(1)
			return
		}
	}
}

var storms [8]storm

func TestFaultsOfThreadsJoinedByThreads(t *testing.T) {
	lwptest.SkipRace(t)
	alive(t)
	leaks(t)
	for i := range storms {
		storms[i].depth = 1
	}
	var reapers [4]storm
	var threads [4]lwp.Thread
	for i := range reapers {
		reapers[i].n = lwptest.Count(25_000, 1_000)
		th, err := lwp.Start(reaper, &reapers[i])
		if err != nil {
			t.Fatal(err)
		}
		threads[i] = th
	}
	for i, th := range threads {
		if err := th.Join(); err != nil {
			t.Error(err)
		}
		if n := reapers[i].wrong.Load(); n != 0 {
			t.Errorf("thread %d joined something else than a Fault", i)
		}
	}
	alive(t)
}

// What the signal alone tells is what a thread that joins gets.
func TestReasonForAThreadThatJoins(t *testing.T) {
	lwptest.SkipRace(t)
	type join struct {
		of     lwp.Thread
		reason lwp.Reason
		size   int
	}
	for i, want := range map[int]lwp.Reason{
		0: lwp.NilDereference, 5: lwp.StackOverflow, 6: lwp.Explicit, 7: lwp.BadAddress,
	} {
		th, err := lwp.Start(deaths[i], &storm{depth: 1})
		if err != nil {
			t.Fatal(err)
		}
		j := &join{of: th}
		lwptest.OnThread(t, func(j *join) {
			if f, ok := j.of.Join().(*lwp.Fault); ok {
				j.reason, j.size = f.Reason, f.StackSize
			}
		}, j)
		if j.reason != want || j.size == 0 {
			t.Errorf("death %d: %v on a stack of %d, want %v", i, j.reason, j.size, want)
		}
	}
}

func tasks(t *testing.T) []string {
	t.Helper()
	fd, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return names
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// A thread keeps the Fault of its last Join, whatever other threads join and
// whatever it reaps.
func TestFaultOfAThreadThatJoinsStays(t *testing.T) {
	lwptest.SkipRace(t)
	alive(t)
	leaks(t)
	s := &storm{n: lwptest.Count(3000, 300)}
	keep := func(s *storm) {
		for range s.n {
			th, err := lwp.Start(deaths[7], s)
			if err != nil {
				s.wrong.Add(1)
				return
			}
			f, ok := th.Join().(*lwp.Fault)
			if !ok {
				s.wrong.Add(1)
				return
			}
			lwp.StartAttr(deaths[0], s, lwp.Attr{Detached: true, OnFault: tell})
			for range 3 {
				lwp.Yield()
			}
			lwp.StartAttr(deaths[1], s, lwp.Attr{Detached: true, OnFault: tell})
			if f.Thread != th || f.Reason != lwp.BadAddress {
				s.wrong.Add(1)
			}
		}
	}
	var threads [4]lwp.Thread
	for i := range threads {
		th, err := lwp.Start(keep, s)
		if err != nil {
			t.Fatal(err)
		}
		threads[i] = th
	}
	for _, th := range threads {
		if err := th.Join(); err != nil {
			t.Error(err)
		}
	}
	if n := s.wrong.Load(); n != 0 {
		t.Errorf("%d times wrong", n)
	}
	lwptest.Eventually(t, "the detached threads to end", func() bool {
		lwp.Trim()
		return len(lwp.Threads()) == 0
	})
}
