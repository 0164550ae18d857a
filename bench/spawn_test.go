package bench

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
)

// BenchmarkSpawnJoin: one op is to create something that runs an empty body,
// and to join it. The body counts itself; where it has no memory in common
// with its parent, its exit status is looked at instead.
//
//   - lwp: Start and Join on a goroutine. The thread is the kernel's alone: no
//     goroutine can run on it. Its stack, 256 KiB, is used again.
//   - lwppool: the same on a Pool's parked thread; nothing is created.
//   - fiber: sched.Go and Join on a fiber, one worker.
//   - fcontext: a context of Boost.Context is made, runs and jumps back, on one
//     stack, from C: no scheduler, and no one else could wait for it.
//   - goroutine: joined by a channel. No thread of its own.
//   - lockedgoroutine: the goroutine ends locked to its thread, so that the
//     runtime has to end the thread, and to create one for the next. The join
//     by channel does not wait for the end of the thread.
//   - fork, vfork: clone(2) with the flags of fork(2) and vfork(2), and
//     wait4(2). The child exits at once. fork copies this program's page
//     tables, so the figure depends on its size. Go handles a SIGCHLD for
//     each, as it would for os/exec; no program is executed.
//   - pthread: the C library's, with default attributes; it reuses one stack.
//   - clonefloor: clone(2) and a futex wait from C, on one stack: what the
//     kernel asks for a thread. The mask is not changed, so a signal could hit
//     the child, which could not take one; nothing is allocated, nor checked.
func BenchmarkSpawnJoin(b *testing.B) { compare(b, spawnRows) }

var spawnRows = []row{
	{"impl=lwp", func(b *testing.B) error { return spawnLWP(b, lwp.Attr{}) }},
	{"impl=lwppool", spawnPool},
	{"impl=fiber", spawnFiber},
	{"impl=fcontext", inFcontext("spawn")},
	{"impl=goroutine", func(b *testing.B) error { return spawnGoroutine(b, body) }},
	{"impl=lockedgoroutine", func(b *testing.B) error { return spawnGoroutine(b, lockedBody) }},
	{"impl=fork", func(b *testing.B) error { return spawnProcess(b, forkFlags) }},
	{"impl=vfork", func(b *testing.B) error { return spawnProcess(b, unix.CLONE_VM|unix.CLONE_VFORK|forkFlags) }},
	{"impl=pthread", inC("spawn-pthread")},
	{"impl=clonefloor", inC("spawn-clonefloor")},
}

// counter counts bodies that ran, one at a time.
type counter struct{ n int }

func count(c *counter) { c.n++ }

func spawnLWP(b *testing.B, attr lwp.Attr) error {
	var c counter
	for b.Loop() {
		t, err := lwp.StartAttr(count, &c, attr)
		if err != nil {
			return err
		}
		if err := t.Join(); err != nil {
			return err
		}
	}
	return did(c.n, b.N)
}

func spawnPool(b *testing.B) error {
	p, err := lwp.NewPool(lwp.PoolConfig{})
	if err != nil {
		return err
	}
	err = spawnLWP(b, lwp.Attr{Pool: p})
	if e := p.Close(); err == nil {
		err = e
	}
	return err
}

func spawnGoroutine(b *testing.B, body func(*counter, chan<- struct{})) error {
	var c counter
	done := make(chan struct{})
	for b.Loop() {
		go body(&c, done)
		<-done
	}
	return did(c.n, b.N)
}

func body(c *counter, done chan<- struct{}) {
	count(c)
	done <- struct{}{}
}

func lockedBody(c *counter, done chan<- struct{}) {
	runtime.LockOSThread()
	body(c, done)
}

const forkFlags = uintptr(unix.SIGCHLD)

func spawnProcess(b *testing.B, flags uintptr) error {
	good := 0
	for b.Loop() {
		// Without a TCB the child exits before it runs any Go.
		syscall.ForkLock.Lock()
		pid, errno := asm.Clone(&asm.CloneArgs{Flags: flags})
		syscall.ForkLock.Unlock()
		if errno != 0 {
			return fmt.Errorf("clone: %w", syscall.Errno(errno))
		}
		var status unix.WaitStatus
		got, err := unix.Wait4(int(pid), &status, 0, nil)
		for err == unix.EINTR {
			got, err = unix.Wait4(int(pid), &status, 0, nil)
		}
		if err != nil {
			return fmt.Errorf("wait4: %w", err)
		}
		if got == int(pid) && status.Exited() && status.ExitStatus() == 0 {
			good++
		}
	}
	return did(good, b.N)
}
