package lwp

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// A procRecord is what is known of one process. As with threads, records lie
// off the Go heap, are used again and never unmapped, and a handle carries the
// generation of the process that it is of.
//
// Life of a record:
//
//	free      on procs.free
//	  allocProc   generation is that of the handle; pid is 0 until clone has returned
//	running   until the end of the process is collected (Wait), or Release
//	  free        generation+1, so that every handle is stale; descriptor closed
//	released  only for a child with CLONE_VM that still runs: its stack is in
//	          use. On procs.released, from where sweep frees it
//
// mu makes collecting exact. The ID of a process that ended is its own until
// the end is collected, so whoever holds mu and finds the generation it looks
// for can use the ID: nobody has collected it through this package, and it
// cannot be another's.
type procRecord struct {
	mu    futex.Mutex
	gen   uint64
	pid   int32
	pidfd int32 // -1: none yet
	owner int32 // the process whose child it is
	flags Flags
	ctl   uintptr // *control that a child with CLONE_VM runs on, else 0
	exit  uint32  // unborn, then 0 when a child with CLONE_VM has let go of the memory
	next  uint32
	index uint32

	summoned uint32   // see everyone
	rooted   bool     // procRoots holds what was passed
	leaving  bool     // the child is at its exit: its end is a matter of microseconds
	_        [50]byte // two cache lines in all
}

var _ = [1]struct{}{}[unsafe.Sizeof(procRecord{})-128]

// A Process is a handle of a child process, small and without pointers, so
// that it can be copied and stored anywhere. When the end of the process has
// been waited for, the handle is an error and never another process. The zero
// Process is none; Fork returns it in the child.
type Process struct{ id uint64 }

// procs is the set of all records. Index 0 is not used.
var procs struct {
	chunks   [1 << 16 / procChunk]atomic.Uintptr
	mu       futex.Mutex // guards what follows
	count    uint32
	free     uint32
	released atomic.Uint32
}

const (
	procChunk = 512
	maxProcs  = 1<<16 - 1
)

func procAt(i uint32) *procRecord {
	return (*procRecord)(pointer(procs.chunks[i/procChunk].Load() + uintptr(i%procChunk)*unsafe.Sizeof(procRecord{})))
}

func allocProc(flags Flags) (Process, *procRecord, error) {
	sweepProcs()
	asm.Headroom()
	procs.mu.Lock()
	i := procs.free
	if i != 0 {
		procs.free = procAt(i).next
	} else {
		i = procs.count + 1
		if i > maxProcs {
			procs.mu.Unlock()
			return Process{}, nil, ErrLimit
		}
		if procs.chunks[i/procChunk].Load() == 0 {
			addr, errno := mmap(procChunk*unsafe.Sizeof(procRecord{}), unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if errno != 0 {
				procs.mu.Unlock()
				return Process{}, nil, failed(opMmap, errno)
			}
			procs.chunks[i/procChunk].Store(addr)
		}
		procs.count = i
	}
	r := procAt(i)
	r.gen++ // odd: in use
	r.index, r.pid, r.pidfd, r.flags, r.ctl, r.exit = i, 0, -1, flags, 0, unborn
	r.summoned, r.leaving = 0, false
	procs.mu.Unlock()
	return Process{r.gen<<indexBits | uint64(i)}, r, nil
}

// lock returns p's record, locked, if p is still the process that it is of.
func (p Process) lock() (*procRecord, error) {
	i := uint32(p.id & indexMask)
	if i == 0 || i > maxProcs || procs.chunks[i/procChunk].Load() == 0 {
		return nil, ErrNoProcess
	}
	r := procAt(i)
	asm.Headroom()
	r.mu.Lock()
	if gen := p.id >> indexBits; r.gen != gen {
		older := r.gen > gen
		r.mu.Unlock()
		if older && gen%2 == 1 {
			return nil, ErrWaited
		}
		return nil, ErrNoProcess
	}
	return r, nil
}

// drop frees r, locked, and unlocks it.
func (r *procRecord) drop() {
	if r.pidfd >= 0 {
		closeFD(int(r.pidfd))
	}
	if r.ctl != 0 {
		(*control)(pointer(r.ctl)).endProcess()
	}
	r.gen++
	i := r.index
	if asm.Current() == nil {
		if r.rooted {
			unrootProc(i)
			r.rooted = false
		}
	}
	r.mu.Unlock()
	procs.mu.Lock()
	r.next, procs.free = procs.free, i
	procs.mu.Unlock()
}

// inUse says whether the child can still run on memory of ours.
func (r *procRecord) inUse() bool { return r.ctl != 0 && atomic.LoadUint32(&r.exit) != 0 }

// sweepProcs frees the records of released processes that are gone.
func sweepProcs() {
	if procs.released.Load() == 0 {
		return
	}
	for i := procs.released.Swap(0); i != 0; {
		r := procAt(i)
		next := r.next
		r.mu.Lock()
		if r.inUse() {
			r.mu.Unlock()
			r.shelve()
		} else {
			r.drop()
		}
		i = next
	}
}

func (r *procRecord) shelve() {
	for {
		r.next = procs.released.Load()
		if procs.released.CompareAndSwap(r.next, r.index) {
			return
		}
	}
}

// procRoots keeps reachable what a goroutine has passed to a child that shares
// memory. Only goroutines write it; an entry that a thread should have removed
// stays until its record is used again.
var procRoots struct {
	mu sync.Mutex
	of map[uint32]procRoot
}

// A procRoot is what was passed to one child.
type procRoot struct{ fn, arg, parentTID, childTID unsafe.Pointer }

func rootProc(i uint32, r procRoot) {
	procRoots.mu.Lock()
	defer procRoots.mu.Unlock()
	if procRoots.of == nil {
		procRoots.of = map[uint32]procRoot{}
	}
	procRoots.of[i] = r
}

func unrootProc(i uint32) {
	procRoots.mu.Lock()
	delete(procRoots.of, i)
	procRoots.mu.Unlock()
}

// PID returns the process's ID as its maker's PID namespace has it, or 0 for a
// handle that is no longer good.
//
// Context: goroutine or thread.
func (p Process) PID() int {
	r, err := p.lock()
	if err != nil {
		return 0
	}
	pid := r.pid
	r.mu.Unlock()
	return int(pid)
}

// IsChild says whether p is what Fork returns in the child: the zero Process.
func (p Process) IsChild() bool { return p.id == 0 }

// Release gives p up without waiting for it. The process goes on; when it ends
// it stays a zombie until this process ends or somebody waits for any child,
// unless its parent is another.
//
// Context: goroutine or thread.
// Errors: ErrNoProcess, ErrWaited.
func (p Process) Release() error {
	r, err := p.lock()
	if err != nil {
		return err
	}
	r.letGo()
	return nil
}

// letGo drops r, locked, now or when the child does not need its memory any more.
func (r *procRecord) letGo() {
	if !r.inUse() {
		r.drop()
		return
	}
	r.gen += 2 // in use, but by no handle that is about
	r.mu.Unlock()
	r.shelve()
}
