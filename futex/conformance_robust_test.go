package futex_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// TestConformanceRobustList holds what the Linux Test Project's programs of the
// same names do.
func TestConformanceRobustList(t *testing.T) {
	t.Run("set_robust_list01", setRobustList01)
	t.Run("get_robust_list01", getRobustList01)
}

// listCalls is what a thread finds when it makes the raw calls.
type listCalls struct {
	list      futex.RobustList
	wrongSize [3]syscall.Errno
	right     syscall.Errno
	got       uintptr
	gotErr    syscall.Errno
	efault    [2]syscall.Errno
	esrch     syscall.Errno
	eperm     syscall.Errno
	other     int // a process with a list, whose address is of no interest
	otherErr  syscall.Errno
	noTID     int
}

func setList(c *listCalls) {
	size := unsafe.Sizeof(c.list)
	for i, wrong := range [...]uintptr{^uintptr(0), size - 1, size + 1} {
		_, _, c.wrongSize[i] = unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(unsafe.Pointer(&c.list)), wrong, 0)
	}
	c.list.Next = uintptr(unsafe.Pointer(&c.list))
	_, _, c.right = unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(unsafe.Pointer(&c.list)), size, 0)
	if head, err := futex.GetRobustList(0); err == nil {
		c.got = head
	}
}

func setRobustList01(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	c := new(listCalls)
	lwptest.OnThread(t, setList, c)
	for i, errno := range c.wrongSize {
		if errno != syscall.EINVAL {
			t.Errorf("wrong size %d: %v", i, errno)
		}
	}
	if c.right != 0 || c.got != uintptr(unsafe.Pointer(&c.list)) {
		t.Errorf("right size: %v, and the list is at %#x", c.right, c.got)
	}
}

func getList(c *listCalls) {
	get := func(tid, head, size uintptr) syscall.Errno {
		_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, tid, head, size)
		return errno
	}
	var head, size uintptr
	to, from := uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&size))
	c.list.Next = uintptr(unsafe.Pointer(&c.list))
	if futex.SetRobustList(&c.list) == nil {
		c.gotErr = get(0, to, from)
		c.got = head
		if size != unsafe.Sizeof(c.list) {
			c.gotErr = syscall.EPROTO
		}
		futex.SetRobustList(nil)
	}
	c.efault[0] = get(0, ^uintptr(0), from)
	c.efault[1] = get(0, to, ^uintptr(0))
	c.otherErr = get(uintptr(c.other), to, from)
	c.esrch = get(uintptr(c.noTID), to, from)
	// The credentials of this thread alone; it ends with them.
	const nobody = 65534
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno == 0 {
		c.eperm = get(1, to, from)
	}
}

func getRobustList01(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	lwptest.NeedRoot(t)
	_, file := newCommon(t)
	cmd := spawn(t, file, "waitOnce")
	// The largest that there can be, and nobody has.
	c := &listCalls{other: cmd.Process.Pid, noTID: 1<<22 - 1}
	lwptest.OnThread(t, getList, c)
	if c.gotErr != 0 || c.got != uintptr(unsafe.Pointer(&c.list)) {
		t.Errorf("own list: %v, at %#x", c.gotErr, c.got)
	}
	if c.otherErr != 0 {
		t.Errorf("another's list: %v", c.otherErr)
	}
	for what, k := range map[string]struct{ got, want syscall.Errno }{
		"bad head": {c.efault[0], syscall.EFAULT}, "bad size": {c.efault[1], syscall.EFAULT},
		"nobody": {c.esrch, syscall.ESRCH}, "without privilege": {c.eperm, syscall.EPERM},
	} {
		if k.got != k.want {
			t.Errorf("%s: %v, want %v", what, k.got, k.want)
		}
	}
}

// A node is a robust lock as the kernel reads it: next is the entry.
type node struct {
	next uintptr
	word uint32
	_    uint32
}

const nodeOffset = int(unsafe.Offsetof(node{}.word))

// A heap is a list of nodes whose thread ends when it is told.
type heap struct {
	list   futex.RobustList
	nodes  [10]node
	ready  lwptest.Flag
	end    lwptest.Flag
	build  int
	failed atomic.Uint32
}

const (
	listed    = iota // nodes 0 to 9, held
	pending          // node 0 is pending, held
	unlocking        // node 0 is pending, and its word says that it is free
	circular         // nodes 0 and 1 are each other's next
	notOwned         // node 0 is somebody else's
)

func buildList(h *heap) {
	tid := uint32(unix.Gettid())
	head := uintptr(unsafe.Pointer(&h.list))
	h.list = futex.RobustList{Next: head, Offset: nodeOffset}
	addr := func(i int) uintptr { return uintptr(unsafe.Pointer(&h.nodes[i])) }
	hold := func(i int) {
		atomic.StoreUint32(&h.nodes[i].word, tid|atomic.LoadUint32(&h.nodes[i].word))
	}
	switch h.build {
	case listed:
		for i := range h.nodes {
			hold(i)
			h.nodes[i].next = h.list.Next
			h.list.Next = addr(i)
		}
	case pending:
		hold(0)
		h.list.Pending = addr(0)
	case unlocking:
		h.list.Pending = addr(0)
	case circular:
		hold(0)
		hold(1)
		h.list.Next, h.nodes[0].next, h.nodes[1].next = addr(0), addr(1), addr(0)
	case notOwned:
		h.nodes[0].word = 1
		h.nodes[0].next, h.list.Next = head, addr(0)
	}
	if futex.SetRobustList(&h.list) != nil {
		h.failed.Store(1)
	}
	h.ready.Raise()
	h.end.Wait()
}

// robustList is the kernel's selftest.
func robustList(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	build := func(t *testing.T, how int) (*heap, func()) {
		h := &heap{build: how}
		th, err := lwp.Start(buildList, h)
		if err != nil {
			t.Fatal(err)
		}
		h.ready.Wait()
		return h, func() {
			h.end.Raise()
			lwptest.Within(t, "the kernel to have read the list", func() {
				if err := th.Join(); err != nil || h.failed.Load() != 0 {
					t.Error("thread: ", err)
				}
			})
		}
	}
	// wait sleeps on a held word as a robust lock's waiter does.
	wait := func(t *testing.T, c *crew, word *uint32) {
		c.start(func() {
			for {
				v := atomic.LoadUint32(word)
				if v&futex.OwnerMask == 0 {
					return
				}
				if v&futex.Waiters == 0 && !atomic.CompareAndSwapUint32(word, v, v|futex.Waiters) {
					continue
				}
				out, err := futex.Shared.Wait(word, v|futex.Waiters)
				if err != nil {
					t.Error(err)
					return
				}
				if out == futex.Woken {
					futex.Shared.Wake(word, 1) // the kernel wakes one
				}
			}
		})
	}

	t.Run("marks and wakes", func(t *testing.T) {
		h, end := build(t, listed)
		c := newCrew(t)
		wait(t, c, &h.nodes[3].word)
		eventually(t, "a waiter", func() bool { return sharedSleepers(&h.nodes[3].word) == 1 })
		end()
		within(t, "the waiter", c.wg.Wait)
		if v := h.nodes[3].word; v != futex.OwnerDied|futex.Waiters {
			t.Errorf("a word with a waiter is %#x", v)
		}
		if v := h.nodes[4].word; v != futex.OwnerDied {
			t.Errorf("a word without is %#x", v)
		}
	})
	t.Run("several locks and waiters", func(t *testing.T) {
		h, end := build(t, listed)
		c := newCrew(t)
		for i := range h.nodes {
			for range 3 {
				wait(t, c, &h.nodes[i].word)
			}
		}
		for i := range h.nodes {
			eventually(t, "waiters", func() bool { return sharedSleepers(&h.nodes[i].word) == 3 })
		}
		end()
		within(t, "all waiters", c.wg.Wait)
	})
	t.Run("pending operation", func(t *testing.T) {
		h, end := build(t, pending)
		end()
		if h.nodes[0].word != futex.OwnerDied {
			t.Errorf("a lock that was being taken is %#x", h.nodes[0].word)
		}
		h, end = build(t, unlocking)
		c := newCrew(t)
		c.start(func() {
			out, err := futex.Shared.Wait(&h.nodes[0].word, 0)
			expect(t, futex.Woken, out, err)
		})
		eventually(t, "a waiter", func() bool { return sharedSleepers(&h.nodes[0].word) == 1 })
		end()
		within(t, "who waits for a lock that was being given up", c.wg.Wait)
	})
	t.Run("circular list", func(t *testing.T) {
		h, end := build(t, circular)
		end()
		if h.nodes[0].word != futex.OwnerDied || h.nodes[1].word != futex.OwnerDied {
			t.Errorf("%#x, %#x", h.nodes[0].word, h.nodes[1].word)
		}
	})
	t.Run("another's lock", func(t *testing.T) {
		h, end := build(t, notOwned)
		end()
		if h.nodes[0].word != 1 {
			t.Errorf("it is %#x", h.nodes[0].word)
		}
	})
	t.Run("sizes", setRobustList01)
}

// An exiting is an owner that is about to end, and the lock that it leaves.
type exiting struct {
	word uint32
	go1  lwptest.Flag
	held lwptest.Flag
}

func holdAndExit(e *exiting) {
	atomic.StoreUint32(&e.word, uint32(unix.Gettid()))
	e.held.Raise()
	e.go1.Wait()
}

// futexLockPIExiting has owners end while others lock: the kernel must neither
// hang nor lend a task that is gone.
func futexLockPIExiting(t *testing.T) {
	lwptest.SkipRace(t)
	needPI(t)
	if lwptest.Emulated() {
		t.Skip("qemu-user hands no lock of a dead thread on")
	}
	var died, gone int
	for i := range lwptest.Count(1000, 200) {
		e := new(exiting)
		th, err := lwp.Start(holdAndExit, e)
		if err != nil {
			t.Fatal(err)
		}
		e.held.Wait()
		c := newCrew(t)
		c.start(func() {
			switch out, err := futex.Private.LockPI(&e.word, futex.After(hang)); {
			case err == nil && out == futex.Woken:
				if e.word&futex.OwnerDied != 0 {
					died++
				}
				if err := futex.Private.UnlockPI(&e.word); err != nil {
					t.Error(err)
				}
			default:
				refused(t, out.String(), err, syscall.ESRCH)
				gone++
			}
		})
		busy(time.Duration(i%50) * time.Microsecond)
		e.go1.Raise()
		within(t, "the next owner", c.wg.Wait)
		th.Join()
	}
	t.Logf("the owner had died %d times, was gone %d times", died, gone)
}
