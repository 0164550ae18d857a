package sched

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
)

// Attr says how a fiber is to be. The zero Attr is the default.
type Attr struct {
	// Name is for reports, of up to 16 bytes; more is cut off.
	Name string

	// StackSize is in bytes, rounded up to a power of two; 0 means the scheduler's.
	StackSize int

	// Detached fibers are not joined: their slot is free when they end.
	Detached bool

	// Worker, if not 0, pins the fiber to that worker, the first being 1.
	Worker int

	group  *Group // that it is a member of
	member unsafe.Pointer
}

// Go starts a fiber that runs fn(arg) on the caller's scheduler. It goes to the
// queue of the caller's worker; idle workers steal from there. It must be joined
// or detached.
//
// Context: fiber. What fn and arg lead to must be off the Go heap, a package
// variable, or kept reachable by others until the fiber has ended; fn is
// freestanding code. Nothing is allocated on the Go heap.
// Errors: ErrNilFunc; ErrNotFiber; ErrClosed; *Error with ENOMEM.
// Ordering: what happens before Go happens before fn.
func Go[T any](fn func(*T), arg *T) (Fiber, error) {
	return goShort(*(*uintptr)(unsafe.Pointer(&fn)), uintptr(unsafe.Pointer(arg)))
}

// GoAttr is Go for a fiber with attributes.
//
// Errors: also ErrStackSize and ErrConfig for values out of range.
func GoAttr[T any](fn func(*T), arg *T, attr Attr) (Fiber, error) {
	return spawnAttr(*(*uintptr)(unsafe.Pointer(&fn)), uintptr(unsafe.Pointer(arg)), &attr)
}

// Spawn starts a fiber that runs fn(arg) on s, from outside of s. It must be
// joined or detached. fn and arg stay reachable for the collector until the
// fiber has ended.
//
// Context: goroutine.
// Errors: ErrNilFunc; ErrClosed; ErrHosted on a thread; *Error with ENOMEM.
// Ordering: what happens before Spawn happens before fn.
func Spawn[T any](s *Scheduler, fn func(*T), arg *T) (Fiber, error) {
	return SpawnAttr(s, fn, arg, Attr{})
}

// SpawnAttr is Spawn for a fiber with attributes.
//
// Errors: also ErrStackSize and ErrConfig for values out of range.
func SpawnAttr[T any](s *Scheduler, fn func(*T), arg *T, attr Attr) (Fiber, error) {
	return s.spawn(*(*unsafe.Pointer)(unsafe.Pointer(&fn)), unsafe.Pointer(arg), &attr)
}

// spawn is Go in full.
func spawn(fn, arg uintptr) (serial uint64, at uint32, err error) {
	w := self()
	if w == nil || fn == 0 || w.core.closing != 0 {
		return 0, 0, refusal(w, fn)
	}
	l := w.free.list
	if l == 0 {
		f, errno := w.alloc(w.core.class)
		if errno != 0 {
			return 0, 0, errNoMemory
		}
		l = f.ref()
	} else {
		w.free.list = l.fiber().next
		w.free.n--
	}
	f := l.fiber()
	f.Init(uintptr(unsafe.Pointer(f))-ownRoom, fn, arg)
	f.worker = w.loopLink
	h := f.handle()
	w.stats.spawns++
	w.enter()
	f.setState(runnable)
	w.push(f)
	w.leave()
	if w.core.hungry.Load() != 0 {
		return spawned(h.serial, uint32(h.at))
	}
	return h.serial, uint32(h.at), nil
}

// spawned is the end of Go while a worker may have nothing to do.
//
//go:nosplit // an overflow must not lose the handle
func spawned(serial uint64, at uint32) (uint64, uint32, error) {
	w := self()
	w.feeds()
	return serial, at, nil
}

// refusal says why a fiber is not spawned.
func refusal(w *worker, fn uintptr) error {
	switch {
	case fn == 0:
		return ErrNilFunc
	case w == nil:
		return ErrNotFiber
	}
	return ErrClosed
}

func spawnAttr(fn, arg uintptr, a *Attr) (Fiber, error) {
	w := self()
	if w == nil || fn == 0 || w.core.closing != 0 {
		return Fiber{}, refusal(w, fn)
	}
	class, err := a.class(w.core)
	if err != nil {
		return Fiber{}, err
	}
	f, errno := w.alloc(class)
	if errno != 0 {
		return Fiber{}, errNoMemory
	}
	f.prepare(w.core, fn, arg, a)
	h := f.handle()
	w.stats.spawns++
	w.stats.wakes-- // readies counts one
	if a.Worker == 0 {
		f.worker = w.loopLink
	}
	w.readies(f)
	return h, nil
}

// class checks a and returns the class of its stack.
func (a *Attr) class(c *core) (int, error) {
	switch {
	case a.StackSize != 0 && (a.StackSize < MinStackSize || a.StackSize > MaxStackSize):
		return 0, ErrStackSize
	case a.Worker < 0 || a.Worker > len(c.workers):
		return 0, ErrConfig
	case a.StackSize == 0:
		return c.class, nil
	}
	return classOf(a.StackSize), nil
}

// prepare begins the life of f.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) prepare(c *core, fn, arg uintptr, a *Attr) {
	f.Init(uintptr(unsafe.Pointer(f))-ownRoom, fn, arg)
	f.name = [16]byte{}
	if a.Name != "" {
		copy(f.name[:], a.Name)
		f.flags |= hasName
	}
	if a.Detached {
		f.word |= noJoin
	}
	f.worker = 0
	if a.Worker != 0 {
		f.flags |= pinned
		f.worker = c.workers[a.Worker-1].loopLink
	}
	if f.link().class() != c.class {
		f.flags |= otherClass
	}
	if a.group != nil {
		f.flags |= hasGroup
		f.group, f.reason = uintptr(unsafe.Pointer(a.group)), uintptr(a.member)
	}
}

func (s *Scheduler) spawn(fn, arg unsafe.Pointer, a *Attr) (Fiber, error) {
	switch {
	case fn == nil:
		return Fiber{}, ErrNilFunc
	case asm.Current() != nil:
		return Fiber{}, ErrHosted
	}
	c := s.use()
	if c == nil {
		return Fiber{}, ErrClosed
	}
	defer s.unuse()
	class, err := a.class(c)
	if err != nil {
		return Fiber{}, err
	}
	root := addRoot(fn, arg, a)
	c.mu.Lock()
	f, w, err := c.spawn(uintptr(fn), uintptr(arg), a, class, root)
	c.mu.Unlock()
	if err != nil {
		endRoot(root)
		return Fiber{}, err
	}
	w.rouse()
	return f, nil
}

// spawn is Spawn under mu, which keeps Close from ending before the fiber is counted.
func (c *core) spawn(fn, arg uintptr, a *Attr, class int, root uint32) (Fiber, *worker, error) {
	if c.closing != 0 {
		return Fiber{}, nil, ErrClosed
	}
	l := c.outside[class]
	if l == 0 {
		var n uint32
		if l, n, _ = c.pools[class].take(c, class); n == 0 {
			return Fiber{}, nil, errNoMemory
		}
	}
	f := l.fiber()
	c.outside[class] = f.next
	f.prepare(c, fn, arg, a)
	f.root = root
	f.flags |= hasRoot
	h := f.handle()
	c.started++
	if a.Worker == 0 {
		return h, c.injectLocked(f), nil
	}
	return h, f.deliverLocked(), nil
}

// roots keep reachable what goroutines pass to fibers. A worker that ends such
// a fiber cannot clear a pointer on the Go heap (the collector would have to
// hear of it); it puts the entry on a list of used ones, and goroutines clear
// those before they make new ones.
var roots struct {
	mu     sync.Mutex
	chunks [1 << 16]atomic.Pointer[[rootChunk]rootEntry]
	count  uint32
	free   uint32
	used   atomic.Uint32 // entries that fibers have ended with
}

const rootChunk = 1024

type rootEntry struct {
	fn, arg unsafe.Pointer
	group   *Group
	member  unsafe.Pointer
	next    uint32
}

func rootAt(i uint32) *rootEntry { return &roots.chunks[i/rootChunk].Load()[i%rootChunk] }

// addRoot keeps fn and arg, and what a has, reachable until endRoot.
func addRoot(fn, arg unsafe.Pointer, a *Attr) uint32 {
	sweepRoots()
	roots.mu.Lock()
	defer roots.mu.Unlock()
	i := roots.free
	if i == 0 {
		roots.count++
		i = roots.count
		if roots.chunks[i/rootChunk].Load() == nil {
			roots.chunks[i/rootChunk].Store(new([rootChunk]rootEntry))
		}
	} else {
		roots.free = rootAt(i).next
	}
	e := rootAt(i)
	e.fn, e.arg, e.group, e.member = fn, arg, a.group, a.member
	return i
}

// endRoot puts an entry on the list of used ones. Only sweepRoots takes from
// the list, and all at once, so no entry leaves it and comes back between the
// load and the swap.
//
// Context: goroutine or worker.
func endRoot(i uint32) {
	e := rootAt(i)
	for {
		head := roots.used.Load()
		atomic.StoreUint32(&e.next, head)
		if roots.used.CompareAndSwap(head, i) {
			return
		}
	}
}

// sweepRoots clears used entries.
func sweepRoots() {
	i := roots.used.Swap(0)
	if i == 0 {
		return
	}
	roots.mu.Lock()
	defer roots.mu.Unlock()
	for i != 0 {
		e := rootAt(i)
		next := e.next
		e.fn, e.arg, e.group, e.member = nil, nil, nil, nil
		e.next, roots.free = roots.free, i
		i = next
	}
}
