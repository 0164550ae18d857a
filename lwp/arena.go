package lwp

import (
	"errors"
	"math"
	"math/bits"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// Errors of arenas. Those of the kernel are *Error.
var (
	ErrArenaFull   = errors.New("lwp: the arena has not enough room left")
	ErrArenaSize   = errors.New("lwp: the size is negative or larger than the whole arena")
	ErrArenaClosed = errors.New("lwp: the arena is closed")
)

// DefaultArenaLimit is the size in bytes of an Arena with a Limit of 0.
const DefaultArenaLimit = 1 << 30

// An Arena deals out memory off the Go heap, for threads, which have no heap,
// and for what they share with goroutines:
//
//	var a lwp.Arena
//	defer a.Close()
//	p, err := lwp.New[point](&a)
//
// The zero Arena is ready for use. It holds no pointers and can lie anywhere,
// in the memory of another arena too, but must not be copied after its first
// use. Every function takes any mixture of goroutines and threads at a time.
//
// The first allocation reserves Limit bytes of address space, so that nothing
// ever moves; memory is taken as it is touched. The reservation counts against
// RLIMIT_AS and, with vm.overcommit_memory=2, against the commit limit.
//
// Allocations are zeroed, aligned to 8 bytes and freed all at once by Reset or
// Close. From then on whatever points to them must not be followed; after
// Close it must not be kept either, for the Go heap may come to lie there.
//
// The collector does not look into an arena. Pointers to the same or another
// arena, and to globals, are fine there; a pointer to the Go heap keeps nothing
// alive. A thread can store what contains a pointer (a string, a slice, an
// interface) here at any time; while the collector marks, each such store takes
// microseconds. A Ref is stored without that price.
//
// Source: mmap(2), madvise(2).
type Arena struct {
	// Limit is how much the arena holds, in bytes, rounded up to the page
	// size; 0 stands for DefaultArenaLimit. The first allocation reads it.
	Limit int

	mu        futex.Mutex
	next      atomic.Uintptr // see below
	base, end uintptr        // the mapping; set before next is an address, then constant
}

// What Arena.next holds, and how it gets to the other values:
//
//	arenaUnmapped  -> an address in reserve, arenaClosed in Close; under mu
//	an address     of the first free byte, in [base, end] -> another one by
//	               compare-and-swap in alloc, base in Reset, arenaClosed in
//	               Close; the last two under mu
//	arenaClosed    for good
const (
	arenaUnmapped = 0
	arenaClosed   = 1
)

// arenaAlign is the greatest alignment that a Go type has.
const arenaAlign = 8

// New returns a zeroed T in a.
//
// Context: goroutine or thread.
// Errors: ErrArenaFull, ErrArenaSize, ErrArenaClosed; *Error with ENOMEM from
// the first allocation, which the next one tries again.
func New[T any](a *Arena) (*T, error) {
	p, err := a.alloc(unsafe.Sizeof(*(*T)(nil)))
	return (*T)(p), err
}

// NewSlice returns n zeroed Ts in a, with the capacity n: append copies them to
// the Go heap, and faults on a thread.
//
// Context and errors: as New; ErrArenaSize for a negative n.
func NewSlice[T any](a *Arena, n int) ([]T, error) {
	hi, size := bits.Mul64(uint64(unsafe.Sizeof(*(*T)(nil))), uint64(n))
	if n < 0 || hi != 0 {
		return nil, ErrArenaSize
	}
	p, err := a.alloc(uintptr(size))
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*T)(p), n), nil
}

// CloneBytes returns a copy of b in a.
//
// Context and errors: as New.
func CloneBytes(a *Arena, b []byte) ([]byte, error) {
	c, err := NewSlice[byte](a, len(b))
	copy(c, b)
	return c, err
}

// CloneString returns a copy of s in a.
//
// Context and errors: as New.
func CloneString(a *Arena, s string) (string, error) {
	c, err := NewSlice[byte](a, len(s))
	copy(c, s)
	return unsafe.String(unsafe.SliceData(c), len(c)), err
}

// Used returns how many bytes are allocated, what alignment costs included.
func (a *Arena) Used() int {
	if p := a.next.Load(); p > arenaClosed {
		return int(p - a.base)
	}
	return 0
}

// Reset frees all allocations and gives their memory back to the kernel; its
// time is that of what was touched. Memory that is locked (mlock(2)) stays and
// is cleared. An allocation made at the same time can be among those freed. An
// arena that is unused or closed stays so.
//
// Context: goroutine or thread.
func (a *Arena) Reset() {
	a.mu.Lock()
	if p := a.next.Load(); p > arenaClosed {
		a.zero(p)
		a.next.Store(a.base)
	}
	a.mu.Unlock()
}

// Close frees all allocations and the arena's address space.
//
// Context: goroutine or thread.
// Errors: ErrArenaClosed; *Error if the kernel has no room to split a mapping
// (vm.max_map_count), and then the arena stays as it was.
func (a *Arena) Close() error {
	var err error
	a.mu.Lock()
	switch p := a.next.Swap(arenaClosed); p {
	case arenaUnmapped:
	case arenaClosed:
		err = ErrArenaClosed
	default:
		if _, errno := memoryCall(unix.SYS_MUNMAP, a.base, a.end-a.base, 0, 0); errno != 0 {
			a.next.Store(p)
			err = failed(opMunmap, errno)
		}
	}
	a.mu.Unlock()
	return err
}

// alloc returns size zeroed bytes. A compare-and-swap rather than an addition
// moves next: a request without room leaves nothing to take back, and next can
// say that the arena is closed.
func (a *Arena) alloc(size uintptr) (unsafe.Pointer, error) {
	if size > math.MaxInt-arenaAlign {
		return nil, ErrArenaSize
	}
	size = (size + arenaAlign - 1) &^ (arenaAlign - 1)
	for {
		p := a.next.Load()
		switch {
		case p == arenaClosed:
			return nil, ErrArenaClosed
		case p == arenaUnmapped:
			if err := a.reserve(); err != nil {
				return nil, err
			}
		case size > a.end-p:
			if size > a.end-a.base {
				return nil, ErrArenaSize
			}
			return nil, ErrArenaFull
		case size == 0:
			// Not p, which can be past the end and in another mapping:
			// the collector would look there.
			return pointer(a.base), nil
		case a.next.CompareAndSwap(p, p+size):
			return pointer(p), nil
		}
	}
}

// reserve maps the arena, unless another caller was faster.
func (a *Arena) reserve() error {
	var err error
	a.mu.Lock()
	if a.next.Load() == arenaUnmapped {
		err = a.mmap()
	}
	a.mu.Unlock()
	return err
}

func (a *Arena) mmap() error {
	limit := uintptr(a.Limit)
	switch {
	case a.Limit < 0:
		return ErrArenaSize
	case a.Limit == 0:
		limit = DefaultArenaLimit
	}
	limit = (limit + pageMask) &^ pageMask
	base, errno := memoryCall(unix.SYS_MMAP, 0, limit, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if errno != 0 {
		return failed(opMmap, errno)
	}
	a.base, a.end = base, base+limit
	a.next.Store(base)
	return nil
}

// zero makes [base, next) read zero again.
func (a *Arena) zero(next uintptr) {
	if next == a.base {
		return
	}
	// A huge page that begins below next is given back whole; it is as large
	// as what one page of 8-byte page table entries maps.
	huge := (pageMask + 1) * (pageMask + 1) / 8
	top := min(a.end, (next+huge-1)&^(huge-1))
	if _, errno := memoryCall(unix.SYS_MADVISE, a.base, top-a.base, unix.MADV_DONTNEED, 0); errno != 0 {
		clear(unsafe.Slice((*byte)(pointer(a.base)), next-a.base))
	}
}

// memoryCall makes a system call on a mapping. It can take long where much is
// mapped or freed, so a goroutine gives up its P.
func memoryCall(trap, addr, size, arg, flags uintptr) (uintptr, syscall.Errno) {
	if asm.Current() != nil {
		r, _, errno := unix.RawSyscall6(trap, addr, size, arg, flags, ^uintptr(0), 0)
		return r, errno
	}
	r, _, errno := unix.Syscall6(trap, addr, size, arg, flags, ^uintptr(0), 0)
	return r, errno
}

// A Ref is a pointer as the collector does not see it: storing one needs
// nothing of the Go runtime, so threads link objects off the heap with it. It
// keeps nothing alive; what it refers to must be off the Go heap, or a global,
// or be kept reachable by somebody else and not lie on a goroutine's stack,
// which moves. The zero Ref is nil.
type Ref[T any] struct {
	_    [0]*T // no conversion between Refs of different types
	addr uintptr
}

// Ptr returns what r refers to.
func (r Ref[T]) Ptr() *T { return (*T)(pointer(r.addr)) }

// Set makes r refer to p.
func (r *Ref[T]) Set(p *T) { r.addr = uintptr(unsafe.Pointer(p)) }
