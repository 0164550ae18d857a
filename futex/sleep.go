package futex

import (
	"math/bits"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// sharing is the part of a primitive that says who can meet at its words: 0,
// this process; flagPrivate, all who map them. It is set before anybody sleeps,
// and read before the step that gives the primitive away.
type sharing uint32

func (s sharing) scope() Scope { return Private ^ Scope(s) }

// set is Share of a primitive that is idle, or not.
func (s *sharing) set(idle bool) {
	if *s == 0 {
		if !idle {
			panic("futex: Share of a primitive in use")
		}
		*s = flagPrivate
	}
}

// noCopy makes go vet's copylocks report copies of the struct that holds it.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// sleep waits on a primitive's word. An error here is a primitive in memory
// that is unmapped or misaligned, or a seccomp filter without futex(2): going
// on would be a loop without end.
func sleep(s Scope, addr *uint32, val, bitset uint32, d Deadline) Outcome {
	switch s.waitBitset(addr, val, bitset, d) {
	case 0:
		return Woken
	case syscall.EAGAIN:
		return Changed
	case syscall.EINTR:
		return Interrupted
	case syscall.ETIMEDOUT:
		return TimedOut
	}
	panic("futex: the kernel refuses to wait on this primitive")
}

// wake wakes up to n > 0 sleepers of a primitive. Its errors are of no
// interest: the memory can be gone by now, and with it everybody to wake.
func wake(s Scope, addr *uint32, n int) { s.wake(opWake, addr, n, 0) }

// wakeBitset is wake for sleepers that share a bit.
func wakeBitset(s Scope, addr *uint32, n int, bitset uint32) {
	s.wake(opWakeBitset, addr, n, bitset)
}

// low and high return the halves of a 64-bit word; both ports are little
// endian. The kernel compares a half, and code changes the whole, so that two
// facts change in one step.
func low(p *uint64) *uint32  { return (*uint32)(unsafe.Pointer(p)) }
func high(p *uint64) *uint32 { return (*uint32)(unsafe.Add(unsafe.Pointer(p), 4)) }

// multi says that this process may run on more than one CPU. Where it may not,
// whoever is waited for cannot run while the waiter spins.
var multi = numCPU() > 1

// numCPU returns the number of CPUs in the affinity mask of the process, or 1
// if the kernel does not tell.
func numCPU() int {
	var mask [1024]uint64 // 65536 CPUs, above any kernel's NR_CPUS
	size, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		return 1
	}
	n := 0
	for _, w := range mask[:size/8] {
		n += bits.OnesCount64(w)
	}
	return n
}

// How long spinWhile watches: 6 us where a PAUSE takes 30 ns, which is more than
// a wake-up across idle CPUs takes. Two goroutines on two CPUs that hand a
// permit of a Semaphore back and forth took 0.4 to 0.9 us a round with it, 5
// to 8 us without, and 5 to 15 us with half of it, which ends just before the
// other side has woken up. Where other programs keep the CPUs busy the spin is
// lost, and a round took up to 20 us.
const (
	spinRounds = 20 // looks at the word
	spinPauses = 10 // hints between two looks
)

// spinWhile watches *addr for a short while and reports whether it stopped
// holding val.
func spinWhile(addr *uint32, val uint32) bool {
	if !multi {
		return false
	}
	for range spinRounds {
		if atomic.LoadUint32(addr) != val {
			return true
		}
		for range spinPauses {
			asm.Relax()
		}
	}
	return false
}
