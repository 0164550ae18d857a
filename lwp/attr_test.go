package lwp_test

import (
	"errors"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestAttributesOutOfRangeAreRefused(t *testing.T) {
	begin(t)
	pool, err := lwp.NewPool(lwp.PoolConfig{})
	want(t, "NewPool", err, nil)
	var cpus unix.CPUSet
	cpus.Set(0)
	for _, c := range []struct {
		name string
		attr lwp.Attr
		err  error
	}{
		{"stack of 1 byte", lwp.Attr{StackSize: 1}, lwp.ErrStackSize},
		{"negative stack", lwp.Attr{StackSize: -1}, lwp.ErrStackSize},
		{"most negative stack", lwp.Attr{StackSize: math.MinInt}, lwp.ErrStackSize},
		{"largest stack", lwp.Attr{StackSize: math.MaxInt}, lwp.ErrStackSize},
		{"stack just too small", lwp.Attr{StackSize: lwp.MinStackSize - 1}, lwp.ErrStackSize},
		{"stack just too large", lwp.Attr{StackSize: lwp.MaxStackSize + 1}, lwp.ErrStackSize},
		{"negative guard", lwp.Attr{GuardSize: -2}, lwp.ErrGuardSize},
		{"most negative guard", lwp.Attr{GuardSize: math.MinInt}, lwp.ErrGuardSize},
		{"largest guard", lwp.Attr{GuardSize: math.MaxInt}, lwp.ErrGuardSize},
		{"name of 16 bytes", lwp.Attr{Name: "0123456789abcdef"}, lwp.ErrAttr},
		{"name with NUL", lwp.Attr{Name: "a\x00b"}, lwp.ErrAttr},
		{"unknown policy", lwp.Attr{Policy: lwp.PolicyIdle + 1}, lwp.ErrAttr},
		{"priority without policy", lwp.Attr{Priority: 1}, lwp.ErrAttr},
		{"negative priority", lwp.Attr{Policy: lwp.PolicyFIFO, Priority: -1}, lwp.ErrAttr},
		{"priority 100", lwp.Attr{Policy: lwp.PolicyFIFO, Priority: 100}, lwp.ErrAttr},
		{"nice 41", lwp.Attr{Nice: 41}, lwp.ErrAttr},
		{"nice -41", lwp.Attr{Nice: -41}, lwp.ErrAttr},
		{"NEWPID", lwp.Attr{Namespaces: unix.CLONE_NEWPID}, lwp.ErrAttr},
		{"NEWUSER", lwp.Attr{Namespaces: unix.CLONE_NEWUSER}, lwp.ErrAttr},
		{"no namespace at all", lwp.Attr{Namespaces: unix.CLONE_VFORK}, lwp.ErrAttr},
		{"NEWNS with shared FS", lwp.Attr{Namespaces: unix.CLONE_NEWNS}, lwp.ErrAttr},
		{"more types than descriptors", lwp.Attr{EnterTypes: []int{0}}, lwp.ErrAttr},
		{"nine namespaces", lwp.Attr{Enter: make([]int, 9)}, lwp.ErrAttr},
		{"name on a pool", lwp.Attr{Pool: pool, Name: "x"}, lwp.ErrAttr},
		{"stack on a pool", lwp.Attr{Pool: pool, StackSize: 1 << 16}, lwp.ErrAttr},
		{"guard on a pool", lwp.Attr{Pool: pool, GuardSize: lwp.NoGuard}, lwp.ErrAttr},
		{"CPUs on a pool", lwp.Attr{Pool: pool, CPUs: cpus}, lwp.ErrAttr},
		{"policy on a pool", lwp.Attr{Pool: pool, Policy: lwp.PolicyBatch}, lwp.ErrAttr},
		{"nice on a pool", lwp.Attr{Pool: pool, Nice: 1}, lwp.ErrAttr},
		{"private FS on a pool", lwp.Attr{Pool: pool, PrivateFS: true}, lwp.ErrAttr},
		{"private files on a pool", lwp.Attr{Pool: pool, PrivateFiles: true}, lwp.ErrAttr},
		{"namespace on a pool", lwp.Attr{Pool: pool, Namespaces: unix.CLONE_NEWUTS}, lwp.ErrAttr},
		{"namespace entered on a pool", lwp.Attr{Pool: pool, Enter: []int{0}}, lwp.ErrAttr},
	} {
		s := new(stage)
		th, err := lwp.StartAttr(come, s, c.attr)
		if err == nil {
			join(t, th)
		}
		want(t, c.name, err, c.err)
		if th != (lwp.Thread{}) {
			t.Errorf("%s: a handle comes with the error", c.name)
		}
		if c.attr.Pool == nil {
			_, err := lwp.NewPool(lwp.PoolConfig{Attr: c.attr})
			want(t, "pool with "+c.name, err, c.err)
		}
	}
	_, err = lwp.StartAttr[stage](nil, nil, lwp.Attr{StackSize: -1})
	want(t, "nil function", err, lwp.ErrNilFunc)
	_, err = lwp.Start[stage](nil, new(stage))
	want(t, "nil function", err, lwp.ErrNilFunc)
	want(t, "Close", pool.Close(), nil)
}

// deep uses about 100 bytes of stack for each level and more than one page in all.
//
//go:noinline
func deep(n int) int {
	var pad [64]byte
	pad[n%64] = byte(n)
	if n == 0 {
		return 0
	}
	return deep(n-1) + int(pad[n%64]&1)
}

// TestStackIsAsLargeAsAsked runs a thread at every size from the least to two pages
// more, so that some have not a byte more than asked for, through all of
// start, storage, hooks and end.
func TestStackIsAsLargeAsAsked(t *testing.T) {
	begin(t)
	lwptest.Collect(t)
	n := new(atomic.Int64)
	for size := lwp.MinStackSize; size < lwp.MinStackSize+8192; size += 8 * lwptest.Count(8, 64) {
		for _, guard := range []int{0, lwp.NoGuard, 1} {
			for _, detached := range []bool{false, true} {
				th := startAttr(t, func(n *atomic.Int64) {
					must(lwp.OnExit(note, letter('a')), nil)
					n.Add(1)
				}, n, lwp.Attr{StackSize: size, GuardSize: guard, Detached: detached, Name: "small", Nice: 1})
				if !detached {
					join(t, th)
				}
			}
		}
	}
	lwptest.Eventually(t, "detached threads to end", func() bool { return len(lwp.Threads()) == 0 })
	code := lwptest.Code(diary.code.Swap(0))
	if code != 0 {
		t.Error(code)
	}
	// Sizes for which depth counts. 64 bytes are the least that a frame of deep
	// can have, and the space below the guard is the compiler's.
	for _, size := range []int{64 << 10, lwp.DefaultStackSize, 1 << 20, 64 << 20} {
		depth := (size - 4096) / 256
		got := new(int)
		th := startAttr(t, func(got *int) { *got = deep(depth) }, got, lwp.Attr{StackSize: size})
		join(t, th)
		if *got != (depth+1)/2 {
			t.Errorf("stack of %d bytes: %d calls deep counted %d", size, depth, *got)
		}
	}
	// The largest, touched at its top only.
	s := new(stage)
	th, err := lwp.StartAttr(come, s, lwp.Attr{StackSize: lwp.MaxStackSize, GuardSize: lwp.MaxStackSize})
	if err == nil {
		join(t, th)
	} else {
		want(t, "two GiB", err, unix.ENOMEM)
	}
}

// goBelow writes straight down from its frame, without a call that would check
// the bound.
func goBelow(got *uintptr) {
	p := uintptr(unsafe.Pointer(&got))
	for {
		p -= 64
		*(*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&p))) = 1
	}
}

// TestStackEndsInItsGuard overruns the stack, where the overrun must be a
// fault at the guard and not reach the mapping below.
func TestStackEndsInItsGuard(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "MADV_GUARD_INSTALL, and answers as if it had")
	th := startAttr(t, goBelow, new(uintptr), lwp.Attr{StackSize: 64 << 10, GuardSize: 1 << 20})
	var f *lwp.Fault
	if err := th.Join(); !errors.As(err, &f) || f.Reason != lwp.StackOverflow {
		t.Errorf("went through the guard: %v", err)
	}
}

// TestGuardIsWhereTheStackEnds asks the kernel for every page from a
// variable on the stack down to the end of the guard. Threads that were started later lie
// below, so that what is not a guard is mostly some other stack.
func TestGuardIsWhereTheStackEnds(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "MADV_GUARD_INSTALL, and answers as if it had")
	page := uintptr(os.Getpagesize())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	readable := func(addr uintptr) bool {
		n, _, _ := unix.RawSyscall(unix.SYS_WRITE, w.Fd(), addr, 1)
		if n == 1 {
			r.Read(make([]byte, 1))
		}
		return n == 1
	}
	const size, pages = 128 << 10, 16
	for _, guard := range []int{0, 1, pages * int(page)} {
		attr := lwp.Attr{StackSize: size, GuardSize: guard}
		th, s := stays(t, attr)
		below, s2 := stays(t, attr)
		_, s3 := stays(t, attr)
		top := uintptr(s.here.Load()) &^ (page - 1)
		n := uintptr(0)
		for readable(top - n*page) {
			n++
		}
		if got := int(n * page); got < size-int(page) || got > size+int(page) {
			t.Errorf("%d bytes of stack can be read, want about %d", got, size)
		}
		for i := range max(uintptr(guard)/page, 1) {
			if readable(top - (n+i)*page) {
				t.Errorf("guard of %d bytes: page %d of it can be read", guard, i)
			}
		}
		for _, s := range []*stage{s, s2, s3} {
			s.leave.Raise()
		}
		join(t, th)
		join(t, below)
		join(t, s3.self)
	}
}

// TestKernelSeesAttributes looks from outside at threads whose setup is done.
func TestKernelSeesAttributes(t *testing.T) {
	begin(t)
	var cpus, process unix.CPUSet
	if err := unix.SchedGetaffinity(0, &process); err != nil {
		t.Fatal(err)
	}
	last := 0
	for i := range 1024 {
		if process.IsSet(i) {
			last = i
		}
	}
	cpus.Set(last)
	th, s := stays(t, lwp.Attr{CPUs: cpus, Nice: 3, Policy: lwp.PolicyBatch, Name: "attributes"})
	tid := th.TID()
	var got unix.CPUSet
	if err := unix.SchedGetaffinity(tid, &got); err != nil || got != cpus {
		t.Errorf("CPUs %v, %v; want %v", got, err, cpus)
	}
	base := nice(t, os.Getpid())
	if n := nice(t, tid); n != min(base+3, 19) {
		t.Errorf("nice value %d, the process has %d", n, base)
	}
	if p, prio := policy(t, tid); p != unix.SCHED_BATCH || prio != 0 {
		t.Errorf("policy %d, priority %d", p, prio)
	}
	s.leave.Raise()
	join(t, th)

	// What the starter's threads have is as it was.
	if err := unix.SchedGetaffinity(0, &got); err != nil || got != process {
		t.Errorf("the process has CPUs %v now, had %v", got, process)
	}
	th, s = stays(t, lwp.Attr{Policy: lwp.PolicyIdle})
	if p, _ := policy(t, th.TID()); p != unix.SCHED_IDLE {
		t.Errorf("policy %d, want SCHED_IDLE", p)
	}
	s.leave.Raise()
	join(t, th)
}

func nice(t *testing.T, tid int) int {
	t.Helper()
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	if err != nil {
		t.Fatal(err)
	}
	return 20 - raw
}

func policy(t *testing.T, tid int) (policy, priority int) {
	t.Helper()
	p, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
	var prio uint32
	_, _, errno2 := unix.RawSyscall(unix.SYS_SCHED_GETPARAM, uintptr(tid), uintptr(unsafe.Pointer(&prio)), 0)
	if errno != 0 || errno2 != 0 {
		t.Fatal(errno, errno2)
	}
	return int(p), int(prio)
}

func TestRealTimePriority(t *testing.T) {
	begin(t)
	lwptest.NeedCap(t, unix.CAP_SYS_NICE)
	if errno := tryFIFO(); errno != 0 {
		t.Skip("the kernel gives this process no real-time policy: ", errno)
	}
	for p, kernel := range map[lwp.Policy]int{lwp.PolicyFIFO: unix.SCHED_FIFO, lwp.PolicyRR: unix.SCHED_RR} {
		th, s := stays(t, lwp.Attr{Policy: p, Priority: 7})
		if got, prio := policy(t, th.TID()); got != kernel || prio != 7 {
			t.Errorf("policy %d, priority %d, want %d, 7", got, prio, kernel)
		}
		s.leave.Raise()
		join(t, th)
	}
	th, s := stays(t, lwp.Attr{Nice: -4})
	if got := nice(t, th.TID()); got != max(nice(t, os.Getpid())-4, -20) {
		t.Errorf("nice value %d", got)
	}
	s.leave.Raise()
	join(t, th)
}

// tryFIFO asks for a real-time policy without package lwp, on a thread of Go's
// that ends with its goroutine.
func tryFIFO() (errno syscall.Errno) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		prio := uint32(1)
		_, _, errno = unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&prio)))
	}()
	<-done
	return errno
}

// TestKernelsRefusalIsAnError asks for what no kernel gives, often enough that
// a leak of anything would show.
func TestKernelsRefusalIsAnError(t *testing.T) {
	begin(t)
	var nowhere unix.CPUSet
	nowhere.Set(1023)
	refusals := []struct {
		name  string
		attr  lwp.Attr
		op    string
		errno syscall.Errno
	}{
		{"no such CPU", lwp.Attr{CPUs: nowhere}, "sched_setaffinity", unix.EINVAL},
		{"priority with SCHED_OTHER", lwp.Attr{Policy: lwp.PolicyOther, Priority: 5}, "sched_setscheduler", unix.EINVAL},
		{"no priority with SCHED_FIFO", lwp.Attr{Policy: lwp.PolicyFIFO}, "sched_setscheduler", unix.EINVAL},
		{"no descriptor", lwp.Attr{Enter: []int{-1}}, "setns", unix.EBADF},
		{"no namespace", lwp.Attr{Enter: []int{devNull(t)}}, "setns", unix.EINVAL},
	}
	for _, c := range refusals {
		for _, detached := range []bool{false, true} {
			c.attr.Detached = detached
			for range lwptest.Count(500, 100) {
				s := new(stage)
				th, err := lwp.StartAttr(come, s, c.attr)
				checkRefusal(t, c.name, th, err, c.op, c.errno)
				if s.n.Load() != 0 {
					t.Fatalf("%s: the function ran", c.name)
				}
			}
		}
		c.attr.Detached = false
		pool, err := lwp.NewPool(lwp.PoolConfig{Attr: c.attr, MaxThreads: 1})
		want(t, "NewPool", err, nil)
		for range 3 { // the failed one must not count as a thread
			th, err := lwp.StartAttr(come, new(stage), lwp.Attr{Pool: pool})
			checkRefusal(t, c.name+" on a pool", th, err, c.op, c.errno)
		}
		lwptest.Within(t, "Close", func() { want(t, "Close", pool.Close(), nil) })
	}
}

func checkRefusal(t *testing.T, name string, th lwp.Thread, err error, op string, errno syscall.Errno) {
	t.Helper()
	var e *lwp.Error
	if !errors.As(err, &e) || e.Op != op || e.Errno != errno || !errors.Is(err, errno) {
		t.Fatalf("%s: %v, want %s: %v", name, err, op, errno)
	}
	if th != (lwp.Thread{}) {
		t.Fatalf("%s: a handle comes with the error", name)
	}
}

func devNull(t *testing.T) int {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// unprivileged gives up root in a child process, and keeps /proc/self readable.
func unprivileged(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		const nobody = 65534
		if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}
	for _, limit := range []int{unix.RLIMIT_RTPRIO, unix.RLIMIT_NICE} {
		if err := unix.Setrlimit(limit, &unix.Rlimit{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnprivilegedIsRefused(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "namespaces and credentials of its own")
	if lwptest.MustPass(t, nil) {
		return
	}
	ns, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	unprivileged(t)
	begin(t)
	for _, c := range []struct {
		name  string
		attr  lwp.Attr
		op    string
		errno syscall.Errno
	}{
		{"NEWUTS", lwp.Attr{Namespaces: unix.CLONE_NEWUTS}, "clone", unix.EPERM},
		{"NEWUTS with a setup", lwp.Attr{Namespaces: unix.CLONE_NEWUTS, Nice: 1}, "clone", unix.EPERM},
		{"NEWUTS, detached", lwp.Attr{Namespaces: unix.CLONE_NEWUTS, Nice: 1, Detached: true}, "clone", unix.EPERM},
		{"NEWNS", lwp.Attr{Namespaces: unix.CLONE_NEWNS, PrivateFS: true}, "clone", unix.EPERM},
		{"FIFO", lwp.Attr{Policy: lwp.PolicyFIFO, Priority: 1}, "sched_setscheduler", unix.EPERM},
		{"nice", lwp.Attr{Nice: -1}, "setpriority", unix.EACCES},
		{"setns", lwp.Attr{Enter: []int{int(ns.Fd())}}, "setns", unix.EPERM},
	} {
		for range lwptest.Count(1000, 400) { // stacks of far more bytes than the leak check lets pass
			s := new(stage)
			th, err := lwp.StartAttr(come, s, c.attr)
			checkRefusal(t, c.name, th, err, c.op, c.errno)
		}
	}
	s := new(stage)
	join(t, start(t, come, s))
	if s.n.Load() != 1 {
		t.Error("no thread can be started any more")
	}
}
