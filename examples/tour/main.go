// Command tour shows what package lwp does, and the kernel's part in it, on
// threads that it starts itself, and what package sched does without the kernel. It takes a few seconds.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/bits"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/sched"
	"lwprt/tls"
)

func main() {
	fmt.Printf("process %d, %s, %s/%s, %d CPUs\n", os.Getpid(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	for i, section := range []struct {
		title string
		run   func()
	}{
		{"Kernel threads by clone(2)", cloned},
		{"What they share", shared},
		{"Who sees them", seen},
		{"Join and detach", joined},
		{"Thread-local storage", local},
		{"A race, and a mutex", raced},
		{"A thread starts a thread", nested},
		{"A pool of threads", pooled},
		{"What errors look like", refused},
		{"Green threads", green},
		{"What it costs", timed},
	} {
		fmt.Printf("\n== %d. %s ==\n", i+1, section.title)
		section.run()
	}
}

// start and join are for what cannot fail here.
func start[T any](fn func(*T), arg *T, attr lwp.Attr) lwp.Thread {
	return must(lwp.StartAttr(fn, arg, attr))
}

func join(t lwp.Thread) { check(t.Join()) }

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal("tour: ", err)
	}
}

// Section 1.

// A room is where threads wait until main has looked at them.
type room struct {
	inside futex.WaitGroup
	open   futex.Event
}

type visitor struct {
	*room
	name string
}

// visit runs on a thread: the Go runtime does not know where it runs, so it
// prints by lwp.Line, which needs no heap, and waits by futex.
func visit(v *visitor) {
	var l lwp.Line
	l.Str("   thread ").Str(v.name).Str(": TID ").Int(int64(lwp.Self().TID())).
		Str(", getpid ").Int(int64(unix.Getpid())).Print()
	v.inside.Done()
	v.open.Wait()
}

func cloned() {
	fmt.Print(`   Each thread is one clone(2) with these flags:
   CLONE_VM              one address space
   CLONE_FS              one working directory, root and umask
   CLONE_FILES           one table of descriptors
   CLONE_SIGHAND         one table of signal handlers
   CLONE_SYSVSEM         one list of System V semaphore undos
   CLONE_THREAD          one process: same getpid, no SIGCHLD, no wait(2)
   CLONE_SETTLS          a thread pointer of its own: how it finds its own data
   CLONE_PARENT_SETTID   the kernel writes the TID for us, before clone returns
   CLONE_CHILD_CLEARTID  at the thread's end it writes 0 there and wakes a futex

`)
	r := new(room)
	var ts [3]lwp.Thread
	r.inside.Add(len(ts))
	for i, name := range []string{"a", "b", "c"} {
		ts[i] = start(visit, &visitor{r, name}, lwp.Attr{Name: "tour-" + name})
	}
	r.inside.Wait()
	for _, t := range ts {
		status := string(must(os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", t.TID()))))
		fmt.Printf("   /proc: TID %d, name %s, thread group %s\n", t.TID(), field(status, "Name"), field(status, "Tgid"))
	}
	r.open.Set()
	for _, t := range ts {
		join(t)
	}
	fmt.Println("   Three TIDs, and one thread group: that of process", os.Getpid())
}

// field returns a value of a /proc/.../status file.
func field(status, name string) string {
	_, rest, _ := strings.Cut("\n"+status, "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// Section 2.

type gift struct {
	number int
	pipe   [2]int32
	errno  syscall.Errno
}

func give(g *gift) {
	g.number = 42
	if _, _, g.errno = unix.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&g.pipe)), unix.O_CLOEXEC, 0); g.errno != 0 {
		return
	}
	word := [5]byte{'w', 'a', 't', 'e', 'r'}
	_, _, g.errno = unix.RawSyscall(unix.SYS_WRITE, uintptr(g.pipe[1]), uintptr(unsafe.Pointer(&word)), 5)
}

func shared() {
	g := &gift{number: 1}
	fmt.Println("   main: number is", g.number)
	join(start(give, g, lwp.Attr{}))
	if g.errno != 0 {
		check(g.errno)
	}
	fmt.Println("   main: number is", g.number, "after the thread has set it (CLONE_VM)")
	buf := make([]byte, 16)
	n := must(unix.Read(int(g.pipe[0]), buf))
	fmt.Printf("   main: descriptor %d, a pipe that the thread made, holds %q (CLONE_FILES)\n", g.pipe[0], buf[:n])
	unix.Close(int(g.pipe[0]))
	unix.Close(int(g.pipe[1]))
	fmt.Println("   No lock was needed: the end of a thread comes before the return of its Join.")
}

// Section 3.

func wait(r *room) {
	r.inside.Done()
	r.open.Wait()
}

func seen() {
	const n = 32
	counts := [...]struct {
		name  string
		count func() int
		at    [2]int
	}{
		{name: "entries of /proc/self/task", count: func() int { return len(must(os.ReadDir("/proc/self/task"))) }},
		{name: "lwp.Threads()", count: func() int { return len(lwp.Threads()) }},
		{name: "runtime.NumGoroutine()", count: runtime.NumGoroutine},
		{name: "threads in the runtime's profile", count: pprof.Lookup("threadcreate").Count},
	}
	look := func(when int) {
		for i := range counts {
			counts[i].at[when] = counts[i].count()
		}
	}
	look(0)
	r := new(room)
	r.inside.Add(n)
	var ts [n]lwp.Thread
	for i := range ts {
		ts[i] = start(wait, r, lwp.Attr{})
	}
	r.inside.Wait()
	look(1)
	listed := 0
	for _, t := range ts {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", t.TID())); err == nil {
			listed++
		}
	}
	r.open.Set()
	for _, t := range ts {
		join(t)
	}
	fmt.Printf("   %-34s before   with %d threads of ours\n", "", n)
	for _, c := range counts {
		fmt.Printf("   %-34s %6d   %6d\n", c.name, c.at[0], c.at[1])
	}
	fmt.Printf("   %d of the %d TIDs are in /proc/self/task: the kernel has them all. The Go runtime\n"+
		"   has none: its scheduler does not move them, GOMAXPROCS does not count them, and\n"+
		"   the collector does not stop them.\n", listed, n)
}

// Section 4.

func stay(e *futex.Event) { e.Wait() }

func sign(e *futex.Event) { e.Set() }

func joined() {
	leave := new(futex.Event)
	t := start(stay, leave, lwp.Attr{})
	fmt.Println("   TryJoin on a running thread:      ", t.TryJoin())
	fmt.Println("   JoinFor(5ms) on it:               ", t.JoinFor(5*time.Millisecond))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	fmt.Println("   JoinContext with a 5ms timeout:   ", t.JoinContext(ctx))
	cancel()
	leave.Set()
	fmt.Println("   Join once it may end:             ", t.Join())

	done := new(futex.Event)
	t = start(sign, done, lwp.Attr{})
	fmt.Println("   Detach:                           ", t.Detach())
	fmt.Println("   Join of the detached thread:      ", t.Join())
	done.Wait()
	fmt.Print("   Join sleeps on the word that the kernel clears (CLONE_CHILD_CLEARTID), and a\n" +
		"   goroutine that sleeps there does not hold up others. Nobody joins a detached\n" +
		"   thread: its memory is taken back after its end.\n")
}

// Section 5.

var mine = must(tls.NewKey(drop))

type owner struct {
	gate *futex.Barrier
	n    int
	got  int
	tp   uintptr
}

func own(o *owner) {
	mine.Set(o.n)
	o.gate.Wait() // all have set it before one reads it
	o.got, _ = mine.Get()
	o.tp = tls.Current().Self
}

func drop(n *int) {
	var l lwp.Line
	l.Str("   destructor: value ").Int(int64(*n)).Str(" of TID ").Int(int64(lwp.Self().TID())).Print()
}

func local() {
	owners := [2]owner{{n: 100}, {n: 200}}
	owners[0].gate = futex.NewBarrier(2)
	owners[1].gate = owners[0].gate
	a, b := start(own, &owners[0], lwp.Attr{}), start(own, &owners[1], lwp.Attr{})
	join(a)
	join(b)
	for i := range owners {
		fmt.Printf("   thread %d: set %d, read %d, thread pointer %#x\n", i+1, owners[i].n, owners[i].got, owners[i].tp)
	}
	fmt.Println("   One key, two values: each is found by the thread pointer (CLONE_SETTLS).")
}

// Section 6.

const adders, additions = 4, 100_000

type account struct {
	gate futex.Barrier
	lock futex.Mutex
	n    int
}

func addPlain(a *account) {
	a.gate.Wait()
	for range additions {
		a.n++
	}
}

func addLocked(a *account) {
	a.gate.Wait()
	for range additions {
		a.lock.Lock()
		a.n++
		a.lock.Unlock()
	}
}

func raced() {
	run := func(add func(*account)) int {
		a := new(account)
		a.gate.Init(adders)
		var ts [adders]lwp.Thread
		for i := range ts {
			ts[i] = start(add, a, lwp.Attr{})
		}
		for _, t := range ts {
			join(t)
		}
		return a.n
	}
	const want = adders * additions
	n := run(addPlain)
	for end := time.Now().Add(time.Second); n == want && time.Now().Before(end); {
		n = run(addPlain)
	}
	fmt.Printf("   %d threads add 1, %d times each: %d is right\n", adders, additions, want)
	fmt.Printf("   n++ alone:              %7d, lost %d\n", n, want-n)
	if n == want {
		fmt.Println("   Nothing was lost: the threads did not run at the same time. See examples/race.")
	}
	n = run(addLocked)
	fmt.Printf("   with a futex.Mutex:     %7d, lost %d\n", n, want-n)
}

// Section 7.

type outer struct {
	arena *lwp.Arena
	sum   int
	done  bool
}

type inner struct{ to, sum int }

func addUp(i *inner) {
	for n := range i.to {
		i.sum += n + 1
	}
	var l lwp.Line
	l.Str("   inner: TID ").Int(int64(lwp.Self().TID())).Str(" has added up 1 to ").Int(int64(i.to)).Print()
}

// split runs on a thread. What it passes on lies in the arena: it has no heap,
// and its stack is not where the collector looks for pointers.
func split(o *outer) {
	i, err := lwp.New[inner](o.arena)
	if err != nil {
		return
	}
	i.to = 100
	t, err := lwp.Start(addUp, i)
	if err != nil {
		return
	}
	var l lwp.Line
	l.Str("   outer: TID ").Int(int64(lwp.Self().TID())).Str(" has started TID ").Int(int64(t.TID())).Print()
	o.done = t.Join() == nil
	o.sum = i.sum
}

func nested() {
	o := &outer{arena: new(lwp.Arena)}
	join(start(split, o, lwp.Attr{}))
	check(o.arena.Close())
	fmt.Printf("   main:  outer has joined inner: %t, the sum is %d\n", o.done, o.sum)
	fmt.Print("   Start and Join work on threads as on goroutines; there they make nothing on the\n" +
		"   Go heap, and no goroutine takes part.\n")
}

// Section 8.

func nothing(*struct{}) {}

func pooled() {
	pool := must(lwp.NewPool(lwp.PoolConfig{}))
	runs := func(attr lwp.Attr) (tids [3]int) {
		for i := range tids {
			t := start(nothing, nil, attr)
			tids[i] = t.TID()
			join(t)
		}
		return tids
	}
	fmt.Println("   TIDs of three threads by Start:       ", runs(lwp.Attr{}))
	fmt.Println("   TIDs of three runs on a pool's thread:", runs(lwp.Attr{Pool: pool}))
	check(pool.Close())
	fmt.Print("   A thread of a pool that has run its function sleeps on a futex and is woken for\n" +
		"   the next: no clone(2), no exit(2).\n")
}

// Section 9.

func joinSelf(*struct{}) {
	if err := lwp.Self().Join(); err != nil {
		var l lwp.Line
		l.Str("   a thread joins itself:    ").Str(err.Error()).Print()
	}
}

func refused() {
	twice := start(nothing, nil, lwp.Attr{})
	join(twice)
	_, noFunc := lwp.Start[int](nil, nil)
	_, bigStack := lwp.StartAttr(nothing, nil, lwp.Attr{StackSize: 1 << 40})
	var far lwp.Attr
	far.CPUs.Set(len(far.CPUs)*bits.UintSize - 1)
	_, noCPU := lwp.StartAttr(nothing, nil, far)

	fmt.Println("   Join a second time:      ", twice.Join())
	fmt.Println("   Join of the zero Thread: ", lwp.Thread{}.Join())
	join(start(joinSelf, nil, lwp.Attr{}))
	fmt.Println("   Start of a nil function: ", noFunc)
	fmt.Println("   a stack of 1 TiB:        ", bigStack)
	fmt.Println("   a CPU that is not there: ", noCPU)
	fmt.Println("   The last one comes from the kernel: errors.Is(err, syscall.EINVAL) is", errors.Is(noCPU, syscall.EINVAL))
}

// Section 10.

// A turn is what a fiber works on: a green thread.
type turn struct{ name string }

func takeTurns(t *turn) {
	for i := range 2 {
		var l lwp.Line
		l.Str("   fiber ").Str(t.name).Str(": turn ").Int(int64(i + 1)).Str(", on TID ").Int(int64(lwp.Self().TID())).Print()
		sched.Yield()
	}
}

// A hall is where fibers come and wait, and the one who lets them in and out.
type hall struct {
	turns  [3]turn
	fibers [10_000]sched.Fiber
	left   int
	failed bool
}

func (h *hall) three() {
	var fs [3]sched.Fiber
	for i := range fs {
		fs[i], _ = sched.Go(takeTurns, &h.turns[i])
	}
	for _, f := range fs {
		h.failed = f.Join() != nil || h.failed
	}
}

func (h *hall) stay() {
	sched.Park("the end of the section")
	h.left++
}

func (h *hall) fill() {
	for i := range h.fibers {
		h.fibers[i], _ = sched.Go((*hall).stay, h)
	}
}

func (h *hall) empty() {
	for i := range h.fibers { // with a value, range would copy the array: onto this stack
		h.fibers[i].Unpark()
	}
	for i := range h.fibers {
		h.failed = h.fibers[i].Join() != nil || h.failed
	}
}

func green() {
	s := must(sched.New(sched.Config{Workers: 1, StackSize: 4 << 10}))
	h := &hall{turns: [3]turn{{"a"}, {"b"}, {"c"}}}
	run := func(fn func(*hall)) { check(must(sched.Spawn(s, fn, h)).Join()) }
	tasks := func() int { return len(must(os.ReadDir("/proc/self/task"))) }
	run((*hall).three)
	before := tasks()
	run((*hall).fill)
	fmt.Printf("   entries of /proc/self/task: %d, and %d with %d fibers more\n", before, tasks(), len(h.fibers))
	run((*hall).empty)
	check(s.Close())
	if h.failed || h.left != len(h.fibers) {
		log.Fatal("tour: fibers were not spawned or joined")
	}
	fmt.Print("   A fiber is a stack that a thread, the worker, switches to: the kernel does not know\n" +
		"   of it. The three took turns because each yielded; nobody would have made them. See\n" +
		"   examples/pingpong, deadlock, greenthreads and skynet.\n")
}

// Section 11.

const batch = 20 // operations between two looks at the clock

type way struct {
	name, how string
	round     func() float64 // does some operations and returns the µs for one
	took      []float64      // by round
}

// each is a round of batch operations.
func each(op func()) func() float64 {
	return func() float64 {
		begin := time.Now()
		for range batch {
			op()
		}
		return time.Since(begin).Seconds() * 1e6 / batch
	}
}

// A timing is of operations on a fiber, which are too short for each to be
// asked for by a goroutine.
type timing struct {
	took   int64 // ns
	failed bool
}

const many = 10_000

func (t *timing) spawn() {
	begin := futex.Monotonic()
	for range many {
		f, err := sched.Go(nothing, nil)
		t.failed = err != nil || f.Join() != nil || t.failed
	}
	t.took = futex.Monotonic() - begin
}

func timed() {
	pool := must(lwp.NewPool(lwp.PoolConfig{}))
	fibers := must(sched.New(sched.Config{Workers: 1}))
	var wg sync.WaitGroup
	ways := []way{
		{name: "lwp", how: "Start, Join", round: each(func() { join(start(nothing, nil, lwp.Attr{})) })},
		{name: "pool", how: "StartAttr with a Pool, Join", round: each(func() { join(start(nothing, nil, lwp.Attr{Pool: pool})) })},
		{name: "fiber", how: "sched.Go, Join on a fiber", round: func() float64 {
			t := new(timing)
			check(must(sched.Spawn(fibers, (*timing).spawn, t)).Join())
			if t.failed {
				log.Fatal("tour: fibers were not spawned or joined")
			}
			return float64(t.took) / 1e3 / many
		}},
		{name: "goroutine", how: "go, WaitGroup.Wait", round: each(func() {
			wg.Go(func() {})
			wg.Wait()
		})},
		{name: "locked", how: "the same, with LockOSThread", round: each(func() {
			wg.Go(runtime.LockOSThread)
			wg.Wait()
		})},
	}
	// In turns, so that what else the machine does falls on all alike.
	rounds := 0
	for end := time.Now().Add(1500 * time.Millisecond); rounds < 3 || time.Now().Before(end); rounds++ {
		for i := range ways {
			ways[i].took = append(ways[i].took, ways[i].round())
		}
	}
	check(pool.Close())
	check(fibers.Close())

	fmt.Printf("   One operation creates, runs an empty function and waits for its end. Medians of\n"+
		"   %d rounds of %d, %d for fibers, the five in turns, on one goroutine or fiber:\n\n", rounds, batch, many)
	fmt.Printf("   %-10s %-28s %9s %10s\n", "", "", "us", "lwp = 1")
	base := median(ways[0].took)
	for _, w := range ways {
		m := median(w.took)
		fmt.Printf("   %-10s %-28s %9.3f %10.4f\n", w.name, w.how, m, m/base)
	}
	fmt.Print(`
   lwp        the kernel makes a thread and ends it, each time.
   pool       the kernel wakes a thread that sleeps; none is made.
   fiber      a stack for the function is taken from a list, switched to, and put back.
   goroutine  no kernel thread is made; the runtime queues a function.
   locked     a goroutine that has locked its kernel thread and ends takes the
              thread with it, so that the runtime makes another. Its Wait returns
              before the thread is gone; Join waits for that.
   On several CPUs much of this is one CPU waking another, which a virtual machine
   makes dear: compare with taskset -c 0. Where a goroutine will do, use a goroutine: it
   has all of Go, as threads and fibers have not. README.md says what those are for.
`)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return (x[len(x)/2] + x[(len(x)-1)/2]) / 2
}
