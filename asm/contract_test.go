//go:build linux && (amd64 || arm64)

package asm

import (
	"math"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// The contract that every port keeps. A block is a thread of the test's own:
// stack, room for the g slot, TCB, and what the thread reports.
type block struct {
	TCB
	exit uint32

	body         uintptr // func(*block)
	word         uint32  // for the body: flag up, go on
	g, reg, tp   uintptr
	current      uintptr
	frame        uintptr // an address in body's frame
	mask         uint64
	floats       [8]float64
	other        uintptr
	seen, seenTP uintptr
	errno        uintptr
	depth        int

	lo, hi uintptr // stack
}

const blockStack = 64 << 10

// newBlock returns a block for body, which must be a top-level function.
func newBlock(t *testing.T, body func(*block)) *block {
	t.Helper()
	below := (max(0, -TLSOffset()) + 63) &^ 63
	size := blockStack + below + int(unsafe.Sizeof(block{}))
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(mem) })
	b := (*block)(unsafe.Pointer(&mem[blockStack+below]))
	b.lo = uintptr(unsafe.Pointer(&mem[0]))
	b.hi = b.lo + blockStack
	b.Self, b.Magic = uintptr(unsafe.Pointer(b)), Magic
	b.Entry = *(*uintptr)(unsafe.Pointer(&runBlockFunc))
	b.G.StackLo, b.G.StackHi = b.lo, b.hi
	b.G.StackGuard0, b.G.StackGuard1 = b.lo+928, b.lo+928
	b.body = *(*uintptr)(unsafe.Pointer(&body))
	return b
}

var runBlockFunc = runBlock

func runBlock(t *TCB) {
	b := (*block)(unsafe.Pointer(t))
	(*(*func(*block))(unsafe.Pointer(&b.body)))(b)
}

const threadFlags = syscall.CLONE_VM | syscall.CLONE_FS | syscall.CLONE_FILES | syscall.CLONE_SIGHAND |
	syscall.CLONE_THREAD | syscall.CLONE_SYSVSEM | syscall.CLONE_SETTLS | syscall.CLONE_PARENT_SETTID |
	syscall.CLONE_CHILD_CLEARTID

func (b *block) clone() (tid, errno uintptr) {
	exit := uintptr(unsafe.Pointer(&b.exit))
	return Clone(&CloneArgs{
		Flags:     threadFlags,
		Stack:     b.hi - FrameSize,
		ParentTID: exit,
		ChildTID:  exit,
		TLS:       b.Self,
		TCB:       b.Self,
	})
}

// start makes b's thread.
func (b *block) start(t *testing.T) {
	t.Helper()
	tid, errno := b.clone()
	if errno != 0 {
		t.Fatal("clone: ", syscall.Errno(errno))
	}
	if tid == 0 {
		t.Fatal("clone gives no TID")
	}
}

// join waits until the kernel has cleared the exit word.
func (b *block) join(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); atomic.LoadUint32(&b.exit) != 0; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("the thread does not end")
		}
	}
}

// run is start and join.
func (b *block) run(t *testing.T) {
	t.Helper()
	b.start(t)
	b.join(t)
}

// await waits until the body has raised the flag.
func (b *block) await(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); atomic.LoadUint32(&b.word) != 1; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("the thread does not run")
		}
	}
}

// skipRace skips where freestanding code would call the race detector.
func skipRace(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector instruments the code that runs on the thread")
	}
}

// signalMask returns the calling task's mask of blocked signals; it changes
// nothing.
func signalMask() (mask uint64) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, 0, uintptr(unsafe.Pointer(&mask)), sigsetSize, 0, 0)
	return mask
}

func setSignalMask(mask uint64) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&mask)), 0, sigsetSize, 0, 0)
}

// fullMask is all signals but the two that cannot be blocked.
var fullMask = ^uint64(1<<(syscall.SIGKILL-1) | 1<<(syscall.SIGSTOP-1))

func TestThreadRunsAsItsTCB(t *testing.T) {
	skipRace(t)
	b := newBlock(t, func(b *block) {
		b.g, b.reg, b.tp = Getg(), getgReg(), ThreadPointer()
		b.current = uintptr(unsafe.Pointer(Current()))
		b.mask = signalMask()
	})
	g, reg := Getg(), getgReg()
	b.run(t)
	if Getg() != g || getgReg() != reg {
		t.Errorf("the starter's g is %#x, %#x after clone, was %#x, %#x", Getg(), getgReg(), g, reg)
	}
	want := uintptr(unsafe.Pointer(&b.G))
	if b.g != want || b.reg != want {
		t.Errorf("g is %#x in its slot and %#x in its register, want %#x", b.g, b.reg, want)
	}
	if b.tp != b.Self || b.current != b.Self {
		t.Errorf("thread pointer %#x, Current %#x, want %#x", b.tp, b.current, b.Self)
	}
	mask := fullMask
	if emulated() {
		mask &^= 3 << 62 // qemu-user keeps the last two signals to itself
	}
	if b.mask != mask {
		t.Errorf("the thread starts with signals %#x blocked, want %#x", b.mask, mask)
	}
	if Current() != nil {
		t.Error("Current finds a TCB on a goroutine")
	}
}

func TestCurrentIsNilOnEveryThreadOfGo(t *testing.T) {
	skipRace(t)
	for range 50 {
		b := newBlock(t, func(*block) {})
		b.run(t)
		// A thread of Go made now may get the kernel's structures of the one that has ended.
		done := make(chan bool)
		for range 8 {
			go func() {
				runtime.LockOSThread() // not unlocked: the thread of Go ends too
				done <- Current() == nil
			}()
		}
		for range 8 {
			if !<-done {
				t.Fatal("Current finds a TCB on a goroutine")
			}
		}
	}
}

//go:noinline
func nest(b *block, depth int) int {
	if depth > 0 {
		return nest(b, depth-1) + 1
	}
	var here [4]byte
	b.frame = uintptr(unsafe.Pointer(&here))
	atomic.StoreUint32(&b.word, 1)
	for atomic.LoadUint32(&b.word) == 1 {
		Relax()
	}
	return int(here[0])
}

// TestFramePointersEndAtZero walks the thread's frame pointers as a profiler
// does, from the record of enter's frame down to the deepest, while the thread
// stands still. A record is the saved frame pointer and the return address
// above it, on both ports.
func TestFramePointersEndAtZero(t *testing.T) {
	skipRace(t)
	const depth = 5
	b := newBlock(t, func(b *block) { b.depth = nest(b, depth) })
	b.start(t)
	b.await(t)
	top := b.hi - FrameSize
	word := func(addr uintptr) uintptr { return *(*uintptr)(codeAt(addr)) }
	in := func(pc uintptr, name string) bool {
		f := runtime.FuncForPC(pc)
		return f != nil && strings.HasPrefix(f.Name(), "lwprt/asm."+name)
	}
	last := uintptr(0)
	for a := top - 16; a >= b.frame&^7 && last == 0; a -= 8 {
		if word(a) == 0 && in(word(a+8), "enter") {
			last = a
		}
	}
	if last == 0 {
		t.Error("no record at the end of the stack has a zero frame pointer and returns into enter")
	} else {
		// SP at the call of the first Go function, below the frame of enter: CALL
		// has pushed the return address on amd64. On arm64 it is SP in that
		// function, whose record is at -8(SP) and 0(SP).
		sp := last + 16
		if runtime.GOARCH == "arm64" {
			sp = last + 8
		}
		if sp%16 != 0 || sp >= top || sp < top-4*FrameSize {
			t.Errorf("SP is %#x at the child's first call, want it 16-byte aligned and a little below %#x", sp, top)
		}
		names := []string{}
		low := b.frame&^7 - 256 // the deepest record can be below the deepest variable
		for rec := last; ; {
			next := uintptr(0)
			for a := rec - 8; a >= low && next == 0; a -= 8 {
				if word(a) == rec && runtime.FuncForPC(word(a+8)) != nil {
					next = a
				}
			}
			if next == 0 {
				break
			}
			names = append(names, runtime.FuncForPC(word(next+8)).Name())
			rec = next
		}
		got := strings.Join(names, " ")
		if strings.Count(got, ".nest") < depth || !strings.Contains(got, ".runBlock") || !strings.Contains(got, ".childMain") {
			t.Errorf("the chain of frame pointers leads through %s", got)
		}
	}
	atomic.StoreUint32(&b.word, 2)
	b.join(t)
	if b.depth != depth {
		t.Errorf("nested calls return %d, want %d", b.depth, depth)
	}
}

// inputs keeps the compiler from computing what the test wants computed.
var inputs = [...]float64{1, 3, 0, math.SmallestNonzeroFloat64, 1 << 53, 2, -1}

// float fills out with what depends on rounding, on traps being off, and on
// small numbers not being flushed to zero.
func float(out *[8]float64) {
	in := &inputs
	out[0] = in[0] / in[1]
	out[1] = -in[0] / in[1]
	out[2] = in[0] / in[2]
	out[3] = in[3] * in[0]
	out[4] = in[4] + in[0]
	out[5] = math.Sqrt(in[5])
	out[6] = math.Floor(in[6] / in[1])
	out[7] = float64(int64(in[4]/in[1])) + in[3]
}

func TestFloatsOnThreadAreAsOnGoroutine(t *testing.T) {
	skipRace(t)
	b := newBlock(t, func(b *block) { float(&b.floats) })
	b.run(t)
	var want [8]float64
	float(&want)
	if b.floats != want || want[2] != math.Inf(1) || want[3] == 0 {
		t.Errorf("on the thread %v, on a goroutine %v", b.floats, want)
	}
}

func TestThreadPointerCanBeMoved(t *testing.T) {
	skipRace(t)
	other := newBlock(t, nil)
	b := newBlock(t, func(b *block) {
		b.errno = SetThreadPointer(b.other)
		b.seen, b.seenTP = uintptr(unsafe.Pointer(Current())), ThreadPointer()
		b.errno |= SetThreadPointer(b.Self)
		b.tp = ThreadPointer()
	})
	b.other = other.Self
	if off := TLSOffset(); off != 0 {
		*(*uintptr)(codeAt(other.Self + uintptr(off))) = uintptr(unsafe.Pointer(&b.G))
	}
	b.run(t)
	if b.errno != 0 || b.seen != other.Self || b.seenTP != other.Self || b.tp != b.Self {
		t.Errorf("errno %d; moved to %#x, Current %#x, thread pointer %#x; back at %#x, want %#x",
			b.errno, other.Self, b.seen, b.seenTP, b.tp, b.Self)
	}
}

func TestExitEndsOneTaskWhereverItIs(t *testing.T) {
	skipRace(t)
	b := newBlock(t, func(b *block) { exitNested(b, 3) })
	b.run(t)
	if b.word != 1 {
		t.Error("the thread did not get to Exit, or went past it")
	}
}

//go:noinline
func exitNested(b *block, depth int) {
	if depth > 0 {
		exitNested(b, depth-1)
		b.word = 2
		return
	}
	b.word = 1
	Exit(0)
	b.word = 2
}

// TestProcessOfThisMemory runs a TCB as a process that shares the memory: its
// wait status tells how it ended.
func TestProcessOfThisMemory(t *testing.T) {
	skipRace(t)
	for _, c := range []struct {
		name string
		body func(*block)
		want int
	}{
		{"return", func(b *block) { b.word = 1 }, 0},
		{"exit", func(b *block) { b.word = 1; Exit(7) }, 7},
	} {
		b := newBlock(t, c.body)
		tid, errno := Clone(&CloneArgs{
			Flags: syscall.CLONE_VM | syscall.CLONE_SETTLS | uintptr(syscall.SIGCHLD),
			Stack: b.hi - FrameSize,
			TLS:   b.Self,
			TCB:   b.Self,
		})
		if errno == uintptr(syscall.EINVAL) && emulated() {
			t.Skip("qemu-user makes no process that shares memory")
		}
		if errno != 0 {
			t.Fatal(syscall.Errno(errno))
		}
		if got := waitStatus(t, tid); !got.Exited() || got.ExitStatus() != c.want || b.word != 1 {
			t.Errorf("%s: wait status %#x, body reached %d", c.name, uint32(got), b.word)
		}
	}
}

func waitStatus(t *testing.T, tid uintptr) (s syscall.WaitStatus) {
	t.Helper()
	for {
		pid, err := syscall.Wait4(int(tid), &s, syscall.WALL, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid != int(tid) {
			t.Fatalf("wait4 of %d: %d, %v", tid, pid, err)
		}
		return s
	}
}

// emulated reports whether this is qemu-user, which makes no thread without
// CLONE_SYSVSEM.
func emulated() bool {
	_, errno := Clone(&CloneArgs{Flags: syscall.CLONE_VM | syscall.CLONE_FS | syscall.CLONE_FILES | syscall.CLONE_SIGHAND | syscall.CLONE_THREAD})
	return errno == uintptr(syscall.EINVAL)
}

func TestChildWithoutTCBExitsAtOnce(t *testing.T) {
	if emulated() {
		t.Skip("exit(2) of a child that qemu-user has forked can wait for a lock of its parent's threads")
	}
	parent := os.Getpid()
	for _, c := range []struct {
		name  string
		flags uintptr
	}{
		{"fork", uintptr(syscall.SIGCHLD)},
		{"vfork", syscall.CLONE_VM | syscall.CLONE_VFORK | uintptr(syscall.SIGCHLD)},
	} {
		for range 20 {
			tid, errno := Clone(&CloneArgs{Flags: c.flags})
			if os.Getpid() != parent {
				syscall.Exit(99)
			}
			if errno != 0 {
				t.Fatalf("%s: %v", c.name, syscall.Errno(errno))
			}
			if s := waitStatus(t, tid); s != 0 {
				t.Errorf("%s: wait status %#x, want 0", c.name, uint32(s))
			}
		}
	}
}

func TestStarterKeepsItsSignalMask(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old := signalMask()
	defer setSignalMask(old)
	const usr2 = 1 << (syscall.SIGUSR2 - 1)
	for _, mask := range []uint64{old &^ usr2, old | usr2} {
		setSignalMask(mask)
		if emulated() { // there a process can hang in exit(2)
			newBlock(t, func(*block) {}).run(t)
		} else if tid, errno := Clone(&CloneArgs{Flags: uintptr(syscall.SIGCHLD)}); errno == 0 {
			waitStatus(t, tid)
		} else {
			t.Error(syscall.Errno(errno))
		}
		if got := signalMask(); got != mask {
			t.Errorf("after clone the mask is %#x, was %#x", got, mask)
		}
		if _, errno := Clone(&CloneArgs{Flags: syscall.CLONE_THREAD}); errno == 0 {
			t.Error("clone with CLONE_THREAD alone worked")
		}
		if got := signalMask(); got != mask {
			t.Errorf("after a clone that failed the mask is %#x, was %#x", got, mask)
		}
	}
}

func TestCyclesAdvance(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := Cycles()
	last := start
	for end := time.Now().Add(5 * time.Millisecond); time.Now().Before(end); {
		for range 100 {
			// Counters of CPUs may differ by less than a move from one to another takes.
			c := Cycles()
			if last > c && last-c > 1<<20 {
				t.Fatalf("from %d back to %d", last, c)
			}
			last = c
			Relax()
		}
	}
	if last-start < 1000 { // 1 MHz would give 5000
		t.Errorf("5 ms are %d cycles", last-start)
	}
}
