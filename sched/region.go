package sched

import (
	"math/bits"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

// Every slot of every scheduler lies in one region of address space, reserved
// when the first scheduler is made, so that 32 bits name a fiber and a handle
// can be followed without fear: the region is never unmapped, and where it has
// no slots it reads as zero, which is no serial.
//
//	region  spans, one for each class of stack size, the last for workers
//	span    chunks, dealt out to schedulers and taken back whole
//	chunk   slots of one size, a multiple of unit bytes
//	slot    stack, then the descriptor
var region struct {
	mu    futex.Mutex
	base  uintptr // a multiple of unit
	span  uintptr // bytes of a span
	shift uint    // from a link to its class
	loops link    // where the last span begins: a link from here on is no fiber's
	next  [spans]uintptr
	free  [spans]uintptr // *chunk; chunks given back
	table uintptr        // of chunks, by number

	// serial is greater than any serial of a slot whose memory went back to
	// the kernel, and the first serial of a slot that is used for the first time.
	serial atomic.Uint64
}

const (
	minStackShift = 11
	maxStackShift = 20
	classes       = maxStackShift - minStackShift + 1
	spans         = 16
	loopClass     = spans - 1
	linkShift     = 7
	unit          = 1 << linkShift
	chunkShift    = 21 // of the first classes; see chunkSize
)

// Sizes of fibers' stacks, in bytes.
const (
	MinStackSize     = 1 << minStackShift
	MaxStackSize     = 1 << maxStackShift
	DefaultStackSize = 8 << 10
)

// descSize is the size of a descriptor, two lines.
const descSize = unsafe.Sizeof(fiber{})

var _ = [1]struct{}{}[descSize-unit]

// A link names a fiber by the place of its descriptor in the region, in units.
// The zero link is nil.
type link uint32

//go:nosplit // called where locks are held, which an overflow would keep
func (l link) fiber() *fiber { return (*fiber)(pointer(region.base + uintptr(l)<<linkShift)) }

//go:nosplit // as fiber
func (f *fiber) link() link { return link((uintptr(unsafe.Pointer(f)) - region.base) >> linkShift) }

// A ref is a *fiber, or nil, that the collector does not know of.
type ref uintptr

//go:nosplit // as link
func (r ref) fiber() *fiber { return (*fiber)(pointer(uintptr(r))) }

//go:nosplit // as link
func (f *fiber) ref() ref { return ref(uintptr(unsafe.Pointer(f))) }

// class returns the class of the span that l lies in.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (l link) class() int { return int(l >> region.shift) }

// sizeOf returns the stack size of a class.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func sizeOf(class int) uintptr { return 1 << (minStackShift + class) }

func strideOf(class int) uintptr {
	if class == loopClass {
		return descSize
	}
	return sizeOf(class) + descSize
}

// chunkSize is 2 MiB, the size of a huge page, or room for 15 slots.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func chunkSize(class int) uintptr {
	if class == loopClass {
		return 1 << chunkShift
	}
	return 1 << max(chunkShift, minStackShift+class+4)
}

// classOf returns the class of the smallest stack of at least size bytes.
func classOf(size int) int {
	return bits.Len(uint(max(size, MinStackSize)-1)) - minStackShift
}

// A chunk is dealt out to one scheduler. Its slots are used in order at first.
type chunk struct {
	base  uintptr
	next  uintptr // *chunk, in the list that has it
	class uint32
	slots uint32 // in all
	used  uint32 // slots that have been used, the first of the chunk
	nfree uint32 // while memory is given back: free ones
	free  ref    // likewise
	owner uintptr
}

// reserve makes the region.
func reserve() error {
	region.mu.Lock()
	defer region.mu.Unlock() // on a goroutine
	if region.base != 0 {
		return nil
	}
	// As much as 32 bits of links can name where there is so much address
	// space: arm64 kernels may have 39 bits of it, and RLIMIT_AS may be set.
	errno := syscall.ENOMEM
	for shift := 35; shift >= 28; shift-- {
		size := uintptr(spans) << shift
		base, _, e := unix.RawSyscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, ^uintptr(0), 0)
		if errno = e; errno != 0 {
			continue
		}
		n := size >> chunkShift
		table, _, e := unix.RawSyscall6(unix.SYS_MMAP, 0, n*unsafe.Sizeof(chunk{}), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, ^uintptr(0), 0)
		if errno = e; errno != 0 {
			unix.RawSyscall(unix.SYS_MUNMAP, base, size, 0)
			continue
		}
		region.span, region.table = 1<<shift, table
		region.shift = uint(shift - linkShift)
		region.loops = link(uintptr(loopClass) << shift >> linkShift)
		region.serial.Store(1)
		region.next[0] = 1 << chunkShift // no fiber has link 0
		region.base = base
		return nil
	}
	return &Error{"mmap", errno}
}

// chunkAt returns the chunk that begins at addr, or has it within.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func chunkAt(addr uintptr) *chunk {
	class := int((addr - region.base) / region.span)
	start := region.base + uintptr(class)*region.span
	addr = start + (addr-start)&^(chunkSize(class)-1)
	return (*chunk)(pointer(region.table + (addr-region.base)>>chunkShift*unsafe.Sizeof(chunk{})))
}

// newChunk deals out a chunk.
func newChunk(class int, owner uintptr) (*chunk, syscall.Errno) {
	size := chunkSize(class)
	region.mu.Lock()
	var base uintptr
	if free := region.free[class]; free != 0 {
		base = (*chunk)(pointer(free)).base
		region.free[class] = (*chunk)(pointer(free)).next
	} else if at := region.next[class]; at+size <= region.span {
		base = region.base + uintptr(class)*region.span + at
		region.next[class] += size
	}
	region.mu.Unlock()
	if base == 0 {
		return nil, unix.ENOMEM
	}
	c := chunkAt(base)
	*c = chunk{base: base, class: uint32(class), slots: uint32(size / strideOf(class)), owner: owner}
	if _, _, errno := unix.RawSyscall(unix.SYS_MPROTECT, base, size, unix.PROT_READ|unix.PROT_WRITE); errno != 0 {
		c.retire()
		return nil, errno
	}
	// Slots of the small classes are used up to the last page, so that huge
	// pages waste nothing and save most of the faults.
	advice := uintptr(unix.MADV_NOHUGEPAGE)
	if class <= classOf(hugeStack) {
		advice = unix.MADV_HUGEPAGE
	}
	unix.RawSyscall(unix.SYS_MADVISE, base, size, advice)
	return c, 0
}

// hugeStack is the largest stack whose chunks are advised to be huge pages.
const hugeStack = 4 << 10

// fiberAt returns the descriptor of slot i.
func (c *chunk) fiberAt(i uint32) *fiber {
	stride := strideOf(int(c.class))
	return (*fiber)(pointer(c.base + uintptr(i+1)*stride - descSize))
}

// forget gives the memory of a chunk without a fiber back to the kernel. What
// handles of its fibers may compare with must not come again.
func (c *chunk) forget() {
	top := uint64(0)
	for i := range c.used {
		top = max(top, c.fiberAt(i).serial)
	}
	for old := region.serial.Load(); old <= top && !region.serial.CompareAndSwap(old, top+1); {
		old = region.serial.Load()
	}
	unix.RawSyscall(unix.SYS_MADVISE, c.base, chunkSize(int(c.class)), unix.MADV_DONTNEED)
	c.used, c.nfree, c.free = 0, 0, 0
}

// giveBack returns a chunk to the region: read only again, it counts as little
// as what was never dealt out.
func (c *chunk) giveBack() {
	c.forget()
	unix.RawSyscall(unix.SYS_MPROTECT, c.base, chunkSize(int(c.class)), unix.PROT_READ)
	c.retire()
}

// retire puts a chunk without memory on the list of free ones.
func (c *chunk) retire() {
	c.owner = 0
	region.mu.Lock()
	c.next, region.free[c.class] = region.free[c.class], uintptr(unsafe.Pointer(c))
	region.mu.Unlock()
}
