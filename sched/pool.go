package sched

import (
	"syscall"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// Free slots move between a scheduler's pool and its workers' caches in
// batches. A cache is a stack, so that the slot freed last, whose lines are in
// the CPU's cache, is used next; a second batch in the cache keeps one that
// wavers around a full batch from going to the pool each time.
type cache struct {
	list   ref
	spare  ref // a full batch
	n      uint32
	nspare uint32
}

// batchOf is how many slots of a class a batch has: 128 KiB of stacks, at least one.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func batchOf(class int) uint32 { return uint32(max(1, 64>>class)) }

// A pool is a scheduler's slots of one class.
type pool struct {
	mu      futex.Mutex
	batches link    // linked by fiber.prev
	odd     ref     // single slots, linked by next
	chunk   uintptr // *chunk whose slots have not all been used yet
	chunks  uintptr // *chunk, all others, linked by next
	fresh   uintptr // *chunk, those without a slot in use, linked by next
}

// take returns up to a batch of free slots, linked by next, and how many.
func (p *pool) take(c *core, class int) (ref, uint32, syscall.Errno) {
	p.mu.Lock()
	var list ref
	n, errno := batchOf(class), syscall.Errno(0)
	if p.batches != 0 {
		f := p.batches.fiber()
		list, p.batches = f.ref(), f.prev
	} else {
		list, n, errno = p.collect(c, class)
	}
	p.mu.Unlock()
	return list, n, errno
}

// collect makes a batch of single and unused slots, a short one where memory is out.
func (p *pool) collect(c *core, class int) (list ref, n uint32, errno syscall.Errno) {
	for n < batchOf(class) {
		var f *fiber
		if p.odd != 0 {
			f = p.odd.fiber()
			p.odd = f.next
		} else if f, errno = p.unused(c, class); errno != 0 {
			break
		}
		f.next, list = list, f.ref()
		n++
	}
	if n > 0 {
		errno = 0
	}
	return list, n, errno
}

// unused returns a slot that has not been used since its memory came from the kernel.
func (p *pool) unused(c *core, class int) (*fiber, syscall.Errno) {
	k := (*chunk)(pointer(p.chunk))
	if k == nil || k.used == k.slots {
		if k != nil {
			k.next, p.chunks = p.chunks, p.chunk
			p.chunk = 0
		}
		if k = (*chunk)(pointer(p.fresh)); k != nil {
			p.fresh = k.next
		} else {
			var errno syscall.Errno
			if k, errno = newChunk(class, uintptr(unsafe.Pointer(c))); errno != 0 {
				return nil, errno
			}
		}
		p.chunk = uintptr(unsafe.Pointer(k))
	}
	f := k.fiberAt(k.used)
	k.used++
	f.serial = region.serial.Load()
	f.word = firstWord(f.serial)
	lo, _ := f.stack()
	f.Guard = lo + guard
	f.settle(c)
	return f, 0
}

// put takes back a batch.
func (p *pool) put(list ref, n uint32, class int) {
	p.mu.Lock()
	if n == batchOf(class) {
		f := list.fiber()
		f.prev, p.batches = p.batches, f.link()
	} else {
		for list != 0 {
			f := list.fiber()
			list, f.next, p.odd = f.next, p.odd, list
		}
	}
	p.mu.Unlock()
}

// putOne takes back one slot.
func (p *pool) putOne(f *fiber) {
	p.mu.Lock()
	f.next, p.odd = p.odd, f.ref()
	p.mu.Unlock()
}

// alloc takes a free slot of a class; on the worker's own stack or a fiber's.
func (w *worker) alloc(class int) (*fiber, syscall.Errno) {
	k := &w.caches[class]
	if class == w.core.class {
		k = &w.free
	}
	if k.list == 0 {
		if k.spare != 0 {
			k.list, k.n, k.spare, k.nspare = k.spare, k.nspare, 0, 0
		} else {
			r := refill{w: uintptr(unsafe.Pointer(w)), k: uintptr(unsafe.Pointer(k)), class: class}
			w.call(refillFn, noescape(unsafe.Pointer(&r)))
			if r.errno != 0 {
				return nil, r.errno
			}
		}
	}
	f := k.list.fiber()
	k.list = f.next
	k.n--
	return f, 0
}

type refill struct {
	w, k  uintptr
	class int
	errno syscall.Errno
}

var refillFn = func(p unsafe.Pointer) {
	r := (*refill)(p)
	w, k := (*worker)(pointer(r.w)), (*cache)(pointer(r.k))
	k.list, k.n, r.errno = w.core.pools[r.class].take(w.core, r.class)
}

// release frees the slot of a fiber that has ended, maybe the one on whose
// stack the caller runs: nobody but w takes it before w is off that stack.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) release(f *fiber) {
	k := &w.free
	if class := f.link().class(); class != w.class {
		k = &w.caches[class]
		if k.n >= batchOf(class) {
			w.spill(k, class)
		}
	} else if k.n >= w.batch {
		w.spill(k, class)
	}
	k.add(f)
}

// add frees f's slot into k, which has room.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (k *cache) add(f *fiber) {
	f.clear()
	f.next, k.list = k.list, f.ref()
	k.n++
}

// clear ends the life of f: its handles are stale from here on.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) clear() {
	f.flags = 0
	s := f.serial + 1
	asm.StoreRelease64(&f.word, firstWord(s))
	asm.StoreRelease64(&f.serial, s)
}

// spill makes room in a full cache.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) spill(k *cache, class int) {
	if k.nspare > 0 {
		s := spill{uintptr(unsafe.Pointer(w)), uintptr(unsafe.Pointer(k)), class}
		w.call(spillFn, noescape(unsafe.Pointer(&s)))
	}
	k.spare, k.nspare, k.list, k.n = k.list, k.n, 0, 0
}

type spill struct {
	w, k  uintptr
	class int
}

var spillFn = func(p unsafe.Pointer) {
	s := (*spill)(p)
	w, k := (*worker)(pointer(s.w)), (*cache)(pointer(s.k))
	w.core.pools[s.class].put(k.spare, k.nspare, s.class)
	k.spare, k.nspare = 0, 0
}

// flush gives all that is cached to the pools; on the worker's own stack.
func (w *worker) flush() {
	for class := range w.caches {
		k := &w.caches[class]
		if class == w.core.class {
			k = &w.free
		}
		p := &w.core.pools[class]
		if k.spare != 0 {
			p.put(k.spare, k.nspare, class)
		}
		if k.list != 0 {
			p.put(k.list, k.n, class)
		}
		*k = cache{}
	}
}

// trim gives the memory of chunks without a fiber back to the kernel, and
// returns how many bytes that is. Slots in workers' caches keep their chunks.
func (p *pool) trim(class int) int {
	p.mu.Lock()
	bytes := p.trimLocked(class)
	p.mu.Unlock()
	return bytes
}

func (p *pool) trimLocked(class int) (bytes int) {
	for p.batches != 0 {
		l := p.batches
		p.batches = l.fiber().prev
		toChunks(l.fiber().ref())
	}
	toChunks(p.odd)
	p.odd = 0
	if p.chunk != 0 {
		(*chunk)(pointer(p.chunk)).next, p.chunks = p.chunks, p.chunk
		p.chunk = 0
	}
	var keep uintptr
	for p.chunks != 0 {
		at := p.chunks
		k := (*chunk)(pointer(at))
		p.chunks = k.next
		switch {
		case k.nfree == k.used:
			bytes += int(k.used) * int(strideOf(class))
			k.forget()
			k.next, p.fresh = p.fresh, at
			continue
		case k.used < k.slots: // one at most
			p.chunk = at
		default:
			k.next, keep = keep, at
		}
		for k.free != 0 {
			l := k.free
			f := l.fiber()
			k.free, f.next, p.odd = f.next, p.odd, l
		}
		k.nfree = 0
	}
	p.chunks = keep
	return bytes
}

// toChunks puts free slots on the lists of their chunks.
func toChunks(list ref) {
	for list != 0 {
		l := list
		f := l.fiber()
		list = f.next
		k := chunkAt(uintptr(unsafe.Pointer(f)))
		f.next, k.free = k.free, l
		k.nfree++
	}
}

// each calls do for every chunk, which may change its next.
func (p *pool) each(do func(*chunk)) {
	if p.chunk != 0 {
		do((*chunk)(pointer(p.chunk))) // its next is of no list
	}
	for _, list := range []uintptr{p.chunks, p.fresh} {
		for list != 0 {
			k := (*chunk)(pointer(list))
			list = k.next
			do(k)
		}
	}
}

// drop gives everything back to the region; no fiber is left.
func (p *pool) drop() {
	p.each((*chunk).giveBack)
	*p = pool{}
}
