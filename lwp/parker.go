package lwp

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// A Parker is where one flow of control waits for one signal, be it a
// goroutine, a thread, or a green thread of a scheduler, which lets others run
// meanwhile. It is what Ring and Handler wait with, and others can build on:
//
//	var p lwp.Parker
//	p.Init()
//	// publish p, so that somebody will find it and signal it
//	if !p.Await(d, "the answer") {
//		if /* p was taken back before anybody found it */ {
//			p.Cancel()
//		} else {
//			p.Await(futex.Never, "the answer") // the signal is on its way
//		}
//	}
//
// Each Init is followed by one Signal, which Await waits for, or by Cancel. It is
// this rule that says when the memory is free: from the end of Await on, if that
// was true, nobody touches it. (A thread's wake can still be on its way to the
// address, and harms nobody there.) So a Parker can lie on the stack of a thread
// or a green thread; that of a goroutine, whose stack moves, lies off the heap or
// in an object on it. Who publishes one must not run out of stack between that
// and Await: see asm.ParkRoom. From Init to the end of its wait the caller waits
// for nothing else: a scheduler could take the signal for what ends that.
//
// The zero Parker is ready for Init.
type Parker struct {
	// State is 0 until the signal, and ParkerSignalled from then on. In
	// between it is the waiter's, or the Domain's of a green thread.
	State uint32
	kind  uint32

	domain uintptr // *Domain of a green thread
	Green  uintptr // what the Domain knows the green thread by; a gate's number for byGate
	next   uintptr // *Parker, in the host's list of those to signal on a goroutine
}

// ParkerSignalled is what Parker.State is once there was a signal.
const ParkerSignalled = 1

const parkerSleeps = 2 // State of one who sleeps on it

// Values of Parker.kind: how to wait.
const (
	byFutex  = iota
	bySleep  // the same, without a spin before
	byDomain // a green thread
	byGate   // a goroutine in a channel operation
	byEnd    // nobody: the head of a threadEnd
)

// multi says that there is more than one CPU, so that who is waited for can run
// while the waiter spins.
var multi = runtime.NumCPU() > 1

// spinRounds looks at a word, spinPauses hints between two of them, are about 6
// µs where a hint takes 30 ns: as long as a sleep and a wake-up between two CPUs.
const (
	spinRounds = 20
	spinPauses = 10
)

// spin watches *addr for a short while and reports whether it came to hold val.
func spin(addr *uint32, val uint32) bool {
	if !multi {
		return false
	}
	for range spinRounds {
		if atomic.LoadUint32(addr) == val {
			return true
		}
		for range spinPauses {
			asm.Relax()
		}
	}
	return false
}

// Init readies p for one wait of the caller.
//
// Context: goroutine, thread, green thread.
func (p *Parker) Init() {
	p.State, p.kind, p.domain = 0, byFutex, 0
	if c := current(); c != nil && c.domain != 0 {
		if (*Domain)(pointer(c.domain)).Enter(p) {
			p.kind, p.domain = byDomain, c.domain
		}
	}
}

// Await waits for the signal and reports whether it came before the deadline.
// reason is a constant; it says in a scheduler's reports what is waited for.
//
// Context: who has called Init. A goroutine holds no P while it waits.
// Ordering: what happens before Signal happens before Await returns true.
func (p *Parker) Await(d futex.Deadline, reason string) bool {
	if p.kind == byDomain {
		return (*Domain)(pointer(p.domain)).Await(p, d, reason)
	}
	if p.kind != bySleep && spin(&p.State, ParkerSignalled) {
		return true
	}
	atomic.CompareAndSwapUint32(&p.State, 0, parkerSleeps)
	for atomic.LoadUint32(&p.State) != ParkerSignalled {
		if out, _ := futex.WaitUntil(&p.State, parkerSleeps, d); out == futex.TimedOut {
			return atomic.LoadUint32(&p.State) == ParkerSignalled
		}
	}
	return true
}

// Signal lets the one who waits at p go on, or not wait at all. p is gone from
// then on.
//
// Context: anywhere.
func (p *Parker) Signal() {
	switch p.kind {
	case byDomain:
		(*Domain)(pointer(p.domain)).Signal(p)
	case byGate:
		p.signalGate()
	default:
		if atomic.SwapUint32(&p.State, ParkerSignalled) == parkerSleeps {
			futex.Wake(&p.State, 1)
		}
	}
}

// Cancel ends the wait of a Parker that nobody will signal.
//
// Context: who has called Init.
func (p *Parker) Cancel() {
	if p.kind == byDomain {
		(*Domain)(pointer(p.domain)).Cancel(p)
	}
}

// onStack calls fn(arg) where there is room for locks and system calls: on the
// thread's own stack if the caller is a green thread. fn must not wait for long,
// and is a package variable.
//
//go:nosplit // up to there a green thread's stack does not run out
func onStack(fn func(unsafe.Pointer), arg unsafe.Pointer) {
	if c := current(); c != nil && c.domain != 0 {
		(*Domain)(pointer(c.domain)).Call(fn, arg)
		return
	}
	asm.Headroom() // the stack must not run out while a lock is held
	fn(arg)
}

// The memory of what goroutines wait at, and of calls that are copied: blocks
// off the Go heap, of a power of two in size, used again and never unmapped.
var blocks struct {
	mu   futex.Mutex
	free [maxBlock - minBlock + 1]uintptr // linked by the first word
}

const (
	minBlock   = 7  // 128 bytes
	maxBlock   = 16 // larger ones are mappings
	blockBatch = 64 << 10
)

func blockClass(size uintptr) (class int) {
	for size > 1<<(minBlock+class) {
		class++
	}
	return class
}

// newBlock returns size bytes, zeroed, or nil.
func newBlock(size uintptr) unsafe.Pointer {
	if size > 1<<maxBlock {
		addr, _ := mmap(size, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		return pointer(addr)
	}
	class := blockClass(size)
	asm.Headroom()
	blocks.mu.Lock()
	if blocks.free[class] == 0 {
		addr, errno := mmap(blockBatch, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if errno != 0 {
			blocks.mu.Unlock()
			return nil
		}
		for at := addr; at < addr+blockBatch; at += 1 << (minBlock + class) {
			*(*uintptr)(pointer(at)), blocks.free[class] = blocks.free[class], at
		}
	}
	b := blocks.free[class]
	blocks.free[class] = *(*uintptr)(pointer(b))
	blocks.mu.Unlock()
	clear(unsafe.Slice((*byte)(pointer(b)), size))
	return pointer(b)
}

func freeBlock(p unsafe.Pointer, size uintptr) {
	if size > 1<<maxBlock {
		munmap(uintptr(p), size)
		return
	}
	class := blockClass(size)
	asm.Headroom()
	blocks.mu.Lock()
	*(*uintptr)(p), blocks.free[class] = blocks.free[class], uintptr(p)
	blocks.mu.Unlock()
}
