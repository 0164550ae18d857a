package lwp

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/tls"
)

// Sizes of stacks, in bytes. Stacks do not grow; memory is taken as it is touched.
const (
	DefaultStackSize = 256 << 10
	MinStackSize     = 2 << 10
	MaxStackSize     = 1 << 30 // what the runtime allows a goroutine
)

// A thread's memory is one mapping, from low to high:
//
//	signals   touched by faults only, see sigArea
//	guard     not accessible; 0 bytes with NoGuard
//	stack     [lo, hi), grows down
//	below     where the linker places the g slot, relative to the TCB
//	control   the TCB and what this package adds to it
//
// The top of the stack, the g slot and the hot part of the TCB share a page.
//
// control is the thread's own block. Other threads touch it only before the
// thread starts and after its exit word is 0.
type control struct {
	tls.TCB
	base, size uintptr // the mapping
	guard      uintptr
	next       uintptr // in the cache: the next control
	index      uint32  // of the record of the kernel thread
	dying      bool
	nhooks     uint8
	self       Thread // what Self returns: the run's handle on a pooled thread
	hooks      [maxHooks]hook
	setup      setup
	proc       childState // of a process, not of a thread
	faultState
}

const (
	maxHooks = 16
	pageSize = 4 << 10 // the least; see pageMask
)

var pageMask = uintptr(max(pageSize, syscall.Getpagesize()) - 1)

// cache holds the memory of threads that are gone, the last one on top. It is
// bounded by the address space of its mappings, which also bounds what they
// can hold resident.
var cache struct {
	mu    futex.Mutex
	top   uintptr // *control
	bytes uintptr
	limit atomic.Uintptr
}

const (
	defaultCache = 64 << 20
	cacheDepth   = 8 // mappings of other sizes looked at before a new one is made
)

func init() { cache.limit.Store(defaultCache) }

// SetStackCache sets how many bytes of address space of ended threads' stacks
// are kept for new ones, and returns the setting before. The default is 64 MiB.
func SetStackCache(bytes int) int {
	old := cache.limit.Swap(uintptr(max(0, bytes)))
	trim(uintptr(max(0, bytes)))
	return int(old)
}

// Trim collects detached threads that are gone and returns the memory of all
// cached stacks to the kernel.
func Trim() {
	tidy()
	trim(0)
}

func trim(limit uintptr) {
	for {
		asm.Headroom()
		cache.mu.Lock()
		c := (*control)(pointer(cache.top))
		if cache.bytes <= limit || c == nil {
			cache.mu.Unlock()
			return
		}
		cache.top = c.next
		cache.bytes -= c.size
		cache.mu.Unlock()
		munmap(c.base, c.size)
	}
}

// newControl returns memory for a thread with a stack of at least stackSize
// bytes and a guard of guard bytes, both rounded up to the page size, from the
// cache or the kernel.
func newControl(stackSize, guard uintptr) (*control, error) {
	guard = (guard + pageMask) &^ pageMask
	size := sigArea + guard + (stackSize+tls.Below()+unsafe.Sizeof(control{})+pageMask)&^pageMask
	if c := cached(size, guard); c != nil {
		return c, nil
	}
	// MAP_STACK keeps huge pages off where the kernel knows it; MAP_NORESERVE
	// because what a stack reserves is not what it uses.
	base, errno := mmap(size, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_STACK|unix.MAP_NORESERVE)
	if errno != 0 {
		return nil, failed(opMmap, errno)
	}
	if errno := protect(base+sigArea, guard); errno != 0 {
		munmap(base, size)
		return nil, failed(opMprotect, errno)
	}
	c := (*control)(pointer((base + size - unsafe.Sizeof(control{})) &^ 63))
	c.base, c.size, c.guard = base, size, guard
	hi := (uintptr(unsafe.Pointer(c)) - tls.Below()) &^ 15
	tls.Init(&c.TCB, base+sigArea+guard, hi, layout.Guard, &threadEntry)
	c.initFaults()
	return c, nil
}

// cached takes a mapping of exactly this shape from the cache.
func cached(size, guard uintptr) *control {
	asm.Headroom()
	cache.mu.Lock()
	link := &cache.top
	for range cacheDepth {
		c := (*control)(pointer(*link))
		if c == nil {
			break
		}
		if c.size == size && c.guard == guard {
			*link = c.next
			cache.bytes -= size
			cache.mu.Unlock()
			return c
		}
		link = &c.next
	}
	cache.mu.Unlock()
	return nil
}

// recycle caches or unmaps the memory of a thread that is gone.
func (c *control) recycle() {
	c.dying, c.nhooks, c.count, c.domain, c.Worker = false, 0, 0, 0, 0
	c.Storage.Reset()
	c.TID, c.Robust = 0, asm.RobustList{}
	c.dropJoined()
	asm.Headroom()
	cache.mu.Lock()
	if cache.bytes+c.size <= cache.limit.Load() {
		c.next, cache.top = cache.top, uintptr(unsafe.Pointer(c))
		cache.bytes += c.size
		cache.mu.Unlock()
		return
	}
	cache.mu.Unlock()
	munmap(c.base, c.size)
}

const madvGuardInstall = 102 // MADV_GUARD_INSTALL, Linux 6.13

// protect makes [base, base+size) a guard. Guard markers split no mapping;
// PROT_NONE, for kernels and mappings without them, costs one mapping more
// (vm.max_map_count).
func protect(base, size uintptr) syscall.Errno {
	if size == 0 {
		return 0
	}
	_, _, errno := unix.RawSyscall(unix.SYS_MADVISE, base, size, madvGuardInstall)
	if errno != 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_MPROTECT, base, size, unix.PROT_NONE)
	}
	return errno
}

func mmap(size, flags uintptr) (uintptr, syscall.Errno) {
	addr, _, errno := unix.RawSyscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags, ^uintptr(0), 0)
	return addr, errno
}

func munmap(base, size uintptr) { unix.RawSyscall(unix.SYS_MUNMAP, base, size, 0) }
