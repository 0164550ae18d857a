package lwp

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// A record is what is known of one thread: its exit word and who still has an
// interest in it. Records lie off the Go heap, are used again, and are never
// unmapped: the kernel writes the exit word when the thread is gone, and a
// stale handle must find a generation to compare.
//
// Life of a record, in its word (generation << indexBits | references):
//
//	free       references 0, on a free list
//	  alloc      references 1: the base reference, held until the thread is collected
//	  hold       one more for each call that looks at it (Join, Detach, ...)
//	  drop       one less; the last one out makes generation+1 and frees it
//
// Life of the thread, in its state:
//
//	bit         set by                        once set
//	detached    Detach, or Start              nobody may collect it but the reaper
//	ending      the thread, before exit(2)    whoever sets the second of detached and ending queues it for the reaper
//	collected   the one Join that succeeds,   exit word is 0: stack recycled, base reference dropped
//	            or the reaper
type record struct {
	word  atomic.Uint64
	state atomic.Uint32
	exit  uint32 // exit word: the TID while the thread lives, 0 when it is gone
	tid   uint32 // as exit, and stays
	next  uint32 // index of the next record in a list, 0 at its end
	fn    uintptr
	arg   uintptr
	ctl   uintptr // *control of the kernel thread
	start uint32  // futex word: setup handshake of Start, then the call word of a pooled thread
	flags uint32
	job   uint64 // handle of the run that a pooled thread is to take, or takes
	pool  uintptr
	fault uintptr // *Fault, until Join takes it
	name  [16]byte

	summoned uint32 // see everyone
	_        uint32
	done     uintptr  // *threadEnd, see there
	_        [16]byte // two cache lines in all
}

const (
	detached = 1 << iota
	ending
	collected
)

// Bits of record.flags; written before the thread starts.
const (
	rooted  = 1 << iota // roots holds fn and arg
	pooled              // a run on a pooled thread: no kernel thread of its own
	awaited             // Start waits for the setup's result
	lent                // a pool's own thread: only the pool joins it
)

// A Thread is a handle of a thread, small and without pointers, so that it can
// be copied and stored anywhere. It carries a generation: when the thread has
// been joined and its record serves another, the handle is an error and never
// another thread. The zero Thread is no thread.
type Thread struct{ id uint64 }

const (
	indexBits = 24
	indexMask = 1<<indexBits - 1
	chunkSize = 1024 // records mapped at a time
)

// table is the set of all records. Index 0 is not used, so that 0 can end lists.
var table struct {
	chunks [1 << indexBits / chunkSize]atomic.Uintptr
	mu     futex.Mutex // guards what follows
	count  atomic.Uint32
	free   uint32
	dirty  uint32 // free, but roots still holds references that only a goroutine can clear
}

func recordAt(i uint32) *record {
	return (*record)(pointer(table.chunks[i/chunkSize].Load() + uintptr(i%chunkSize)*unsafe.Sizeof(record{})))
}

// pointer converts the address of something off the Go heap, or of something
// that roots keeps alive.
//
//go:nosplit // onStack calls it
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// alloc takes a free record and returns the handle that is good for it.
func alloc() (Thread, *record, error) {
	asm.Headroom()
	table.mu.Lock()
	i := table.free
	switch {
	case i != 0:
		table.free = recordAt(i).next
	case table.dirty != 0:
		i = table.dirty
		table.dirty = recordAt(i).next
	default:
		i = table.count.Load() + 1
		if i > indexMask {
			table.mu.Unlock()
			return Thread{}, nil, ErrLimit
		}
		if table.chunks[i/chunkSize].Load() == 0 {
			addr, errno := mmap(chunkSize*unsafe.Sizeof(record{}), unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if errno != 0 {
				table.mu.Unlock()
				return Thread{}, nil, failed(opMmap, errno)
			}
			table.chunks[i/chunkSize].Store(addr)
		}
		table.count.Store(i)
	}
	// Under the lock, so that who holds it sees all that may be about to live.
	r := recordAt(i)
	gen := r.word.Load() >> indexBits
	if gen == 0 {
		gen = 1 // the zero Thread has generation 0
	}
	r.state.Store(0)
	r.flags &= rooted // of a dirty record
	r.exit, r.tid, r.start, r.next, r.job, r.pool, r.ctl, r.fault = 0, 0, 0, 0, 0, 0, 0, 0
	r.name = [16]byte{}
	r.summoned, r.done = 0, 0
	r.word.Store(gen<<indexBits | 1)
	table.mu.Unlock()
	return Thread{gen<<indexBits | uint64(i)}, r, nil
}

func (t Thread) index() uint32 { return uint32(t.id & indexMask) }

// hold takes a reference to t's record, or says why t has none.
func (t Thread) hold() (*record, error) {
	i := t.index()
	if i == 0 || i > table.count.Load() {
		return nil, ErrNoThread
	}
	r := recordAt(i)
	for {
		w := r.word.Load()
		if w>>indexBits != t.id>>indexBits || w&indexMask == 0 {
			return nil, r.stale(w, t)
		}
		if r.word.CompareAndSwap(w, w+1) {
			return r, nil
		}
	}
}

// stale says what became of t, whose record now has the word w. A record
// remembers how its last thread ended until it is used again; after that a
// detached thread cannot be told from a joined one.
func (r *record) stale(w uint64, t Thread) error {
	gen := t.id >> indexBits
	if w>>indexBits < gen {
		return ErrNoThread // no handle was ever that
	}
	if w>>indexBits == gen+1 && w&indexMask == 0 {
		// The state is that of the last thread only if the record was still
		// free after it was read: the next one can have been started detached.
		state := r.state.Load()
		if state&detached != 0 && r.word.Load() == w {
			return ErrDetached
		}
	}
	return ErrJoined
}

// drop gives n references back.
func (r *record) drop(i uint32, n uint64) {
	asm.Headroom() // for freed: a record without references must get to its list
	for {
		w := r.word.Load()
		next := w - n
		if next&indexMask == 0 {
			next = (w>>indexBits + 1) << indexBits
		}
		if !r.word.CompareAndSwap(w, next) {
			continue
		}
		if next&indexMask == 0 {
			r.freed(i)
		}
		return
	}
}

// freed puts a record without references on a free list.
func (r *record) freed(i uint32) {
	if r.flags&rooted != 0 && asm.Current() == nil {
		unroot(i)
		r.flags &^= rooted
	}
	table.mu.Lock()
	if r.flags&rooted != 0 {
		r.next, table.dirty = table.dirty, i
	} else {
		r.next, table.free = table.free, i
	}
	table.mu.Unlock()
}

// AppendThreads appends the handles of all threads that live, the calling one
// and parked ones of pools included, and returns the extended slice. A thread
// that starts or ends meanwhile may or may not be among them.
//
// Context: goroutine; thread, if dst has the capacity.
func AppendThreads(dst []Thread) []Thread {
	for i := uint32(1); i <= table.count.Load(); i++ {
		r := recordAt(i)
		w := r.word.Load()
		// In this order: the flags are written before the exit word.
		if w&indexMask != 0 && atomic.LoadUint32(&r.exit) != 0 && r.flags&pooled == 0 {
			dst = append(dst, Thread{w&^indexMask | uint64(i)})
		}
	}
	return dst
}

// Threads returns the handles of all threads that live; see AppendThreads.
//
// Context: goroutine.
func Threads() []Thread { return AppendThreads(nil) }
