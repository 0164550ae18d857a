package lwp

import (
	"context"
	"sync"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// How those who find a ring full or empty wait.
//
// Who waits enters itself in a list, under the lock, and sets a flag; who sends or
// receives looks at the flag afterwards, and takes somebody off the list. Between
// the two a wake-up can be lost:
//
//	receiver: finds the ring empty
//	                                 sender: sends; the flag is not set, nobody is woken
//	receiver: sets the flag, sleeps beside a value
//
// So the one who waits looks once more when the flag is set. Each side then stores
// (the position; the flag) and loads what the other stores, and at least one
// sees the other, if between its store and its load each has a fence:
//
//  1. under the lock: in the list; the flag is set
//  2. the fence of the one who waits
//  3. if the ring has become ready: off the list and try again
//  4. sleep until somebody has taken one off the list and signals
//
// The fence of the other, at each operation, is free. Where many send, or
// receive, the position is moved by a compare-and-swap, which is one. Where one
// does, it is a plain store, and asm.Fence in step 2 has all CPUs do a fence; so
// step 2 needs it for every kind but MPMC. A store by exchange in its place
// makes a send and a receive that need not wait half as slow again; step 2 takes a
// microsecond or two from one that is about to sleep.
//
// One operation wakes one waiter, which tries again, as whoever comes meanwhile
// may be faster. So a wake-up must not end with somebody who does not try: one whose
// time is up at the same moment tries once more before it says so.
//
// Close wakes all. What was sent and not received is left to receive, exactly: a
// send that returned nil was received or will be. With tailClosed in tail no
// position can be claimed any more, and the ring is at its end when head gets
// there. The sender of SPSC claims nothing, it stores; it looks for the flag
// before and after. The receiver that finds the ring closed and empty seals it,
// under the lock: step 2, and if it is still empty then, a value that comes later will
// not be received. The sender of such a value sees the flag, takes the lock, finds
// the ring sealed before its position, and says that it was closed.
//
// TestNaiveRingLosesWakeups runs the version without steps 2 and 3.

var fences = sync.OnceValue(asm.InitFences)

// waitList holds ringWaits, the one that waits longest first.
type waitList struct{ first, last uintptr }

// A ringWait lies on the stack of the thread or green thread that waits, or in a
// block.
type ringWait struct {
	Parker
	r      uintptr // *ring
	prev   uintptr // under r.mu, as the rest
	after  uintptr
	side   uint32
	queued uint32
	skip   uint32 // there is nothing to wait for
}

func (l *waitList) push(w *ringWait) {
	w.prev, w.after = l.last, 0
	if l.last == 0 {
		l.first = uintptr(unsafe.Pointer(w))
	} else {
		(*ringWait)(pointer(l.last)).after = uintptr(unsafe.Pointer(w))
	}
	l.last = uintptr(unsafe.Pointer(w))
	w.queued = 1
}

func (l *waitList) remove(w *ringWait) {
	if w.prev == 0 {
		l.first = w.after
	} else {
		(*ringWait)(pointer(w.prev)).after = w.after
	}
	if w.after == 0 {
		l.last = w.prev
	} else {
		(*ringWait)(pointer(w.after)).prev = w.prev
	}
	w.queued = 0
}

// take removes the first of side and keeps the flag, or returns nil; under mu.
func (r *ring) take(side uint32) *ringWait {
	l := &r.sides[side]
	w := (*ringWait)(pointer(l.first))
	if w != nil {
		r.unlist(w)
	}
	return w
}

// unlist removes w and keeps the flag; under mu.
func (r *ring) unlist(w *ringWait) {
	l := &r.sides[w.side]
	l.remove(w)
	if l.first == 0 {
		atomic.AndUint32(&r.flags, ^uint32(1<<w.side))
	}
}

// ready says that a try of side may succeed, or find the ring closed.
func (r *ring) ready(side uint32) bool {
	h := atomic.LoadUint64(&r.head)
	t := atomic.LoadUint64(&r.tail)
	if atomic.LoadUint32(&r.flags)&ringClosed != 0 {
		return true
	}
	if side == recvSide {
		return t&^tailClosed != h
	}
	return t&^tailClosed-h <= r.mask
}

// spin watches for a short while whether the ring becomes ready; on a green
// thread, which would keep others from running, it does not. A spin in vain
// halves the next one, and one that was not doubles it: where the CPUs have other
// work, spinning is lost.
func (r *ring) spin(side uint32) bool {
	if !multi {
		return false
	}
	if asm.Worker() != 0 {
		return false
	}
	// A look takes the line with the position from the other side. Where the ring
	// holds many values it pays to let some come before the next look.
	pauses := spinPauses
	if r.mask < spinPauses {
		pauses = int(r.mask) + 1
	}
	cut := &r.recvCut
	if side == sendSide {
		cut = &r.sendCut
	}
	c := atomic.LoadUint32(cut)
	for range (spinRounds*spinPauses/pauses)>>c + 1 {
		if r.ready(side) {
			if c > 0 {
				atomic.StoreUint32(cut, c-1)
			}
			return true
		}
		for range pauses {
			asm.Relax()
		}
	}
	if c < maxCut {
		atomic.StoreUint32(cut, c+1)
	}
	return false
}

// maxCut leaves a look or two of a spin.
const maxCut = 5

var (
	// listFn is steps 1 to 3.
	listFn = func(p unsafe.Pointer) {
		w := (*ringWait)(p)
		r := (*ring)(pointer(w.r))
		for range r.window {
			asm.Relax()
		}
		r.mu.Lock()
		if atomic.LoadUint32(&r.flags)&ringClosed != 0 || r.slots == 0 {
			w.skip = 1
			r.mu.Unlock()
			return
		}
		r.sides[w.side].push(w)
		atomic.OrUint32(&r.flags, 1<<w.side)
		r.mu.Unlock()
		if r.naive {
			return
		}
		if r.kind != MPMC {
			asm.Fence()
		}
		if r.ready(w.side) {
			unlistFn(p)
		}
	}
	// unlistFn takes its argument off the list, if nobody else has.
	unlistFn = func(p unsafe.Pointer) {
		w := (*ringWait)(p)
		r := (*ring)(pointer(w.r))
		r.mu.Lock()
		if w.queued != 0 {
			r.unlist(w)
			w.skip = 1
		}
		r.mu.Unlock()
	}
	wakeFns = [2]func(unsafe.Pointer){
		func(p unsafe.Pointer) { (*ring)(p).wakeOne(recvSide) },
		func(p unsafe.Pointer) { (*ring)(p).wakeOne(sendSide) },
	}
	closeRingFn = func(p unsafe.Pointer) { (*closing)(p).do() }
	sealFn      = func(p unsafe.Pointer) { (*sealing)(p).do() }
	sentFn      = func(p unsafe.Pointer) { (*sending)(p).do() }
)

// wake lets one of side try again.
//
//go:nosplit // a green thread's stack must not run out between a value and its wake-up
func (r *ring) wake(side uint32) { onStack(wakeFns[side], unsafe.Pointer(r)) }

func (r *ring) wakeOne(side uint32) {
	r.mu.Lock()
	w := r.take(side)
	r.mu.Unlock()
	if w != nil {
		w.Signal()
	}
}

// wait waits until the ring may be ready for side, and reports false if that was
// not until d.
func (r *ring) wait(side uint32, d futex.Deadline) bool {
	if asm.Current() == nil {
		return r.waitInBlock(side, d)
	}
	var w ringWait
	asm.ParkRoom() // w must not be given up while it is in the list
	return (*ringWait)(pointer(uintptr(unsafe.Pointer(&w)))).wait(r, side, d)
}

// waitInBlock is wait on a goroutine, whose stack moves.
func (r *ring) waitInBlock(side uint32, d futex.Deadline) bool {
	w := newRingWait()
	ok := w.wait(r, side, d)
	w.free()
	return ok
}

func newRingWait() *ringWait {
	w := (*ringWait)(newBlock(unsafe.Sizeof(ringWait{})))
	if w == nil {
		panic("lwp: no memory to wait for a ring")
	}
	return w
}

func (w *ringWait) free() { freeBlock(unsafe.Pointer(w), unsafe.Sizeof(*w)) }

var ringReasons = [...]string{"receive from a ring", "send to a ring"}

func (w *ringWait) wait(r *ring, side uint32, d futex.Deadline) bool {
	w.r, w.side, w.skip = uintptr(unsafe.Pointer(r)), side, 0
	w.Init()
	if w.kind == byFutex {
		w.kind = bySleep // it has spun at the ring
	}
	onStack(listFn, unsafe.Pointer(w))
	if w.skip != 0 {
		w.Cancel()
		return true
	}
	if w.Await(d, ringReasons[side]) {
		return true
	}
	onStack(unlistFn, unsafe.Pointer(w))
	if w.skip != 0 {
		w.Cancel()
		return false
	}
	w.Await(futex.Never, ringReasons[side]) // somebody has taken it off
	return true
}

// waitContext waits in a channel operation until the ring may be ready for side
// or ctx is done.
func (r *ring) waitContext(ctx context.Context, side uint32) {
	if r.spin(side) {
		return
	}
	w := newRingWait()
	w.r, w.side = uintptr(unsafe.Pointer(r)), side
	ch := w.initGate()
	listFn(unsafe.Pointer(w))
	if w.skip == 0 {
		select {
		case <-ch:
		case <-ctx.Done():
			unlistFn(unsafe.Pointer(w))
			if w.skip == 0 {
				<-ch
			}
		}
	}
	w.endGate()
	w.free()
}

// Close has nothing sent any more. What is in the ring can be received; then
// those who receive get ErrRingClosed. All who wait go on.
//
// Context: goroutine, thread, green thread; either end, or somebody else.
// Errors: ErrRingClosed on a second call.
func (r *Ring[T]) Close() error {
	k := closing{r: uintptr(unsafe.Pointer(&r.ring))}
	onStack(closeRingFn, pointer(uintptr(unsafe.Pointer(&k))))
	if k.again {
		return ErrRingClosed
	}
	return nil
}

type closing struct {
	r     uintptr
	again bool
}

func (k *closing) do() {
	r := (*ring)(pointer(k.r))
	r.mu.Lock()
	if k.again = r.slots == 0 || r.flags&ringClosed != 0; k.again {
		r.mu.Unlock()
		return
	}
	atomic.OrUint32(&r.flags, ringClosed)
	if r.kind != SPSC {
		atomic.OrUint64(&r.tail, tailClosed)
	}
	first := [2]uintptr{r.sides[0].first, r.sides[1].first}
	for l := range uintptr(len(first)) {
		for at := first[l]; at != 0; {
			w := (*ringWait)(pointer(at))
			w.queued, at = 0, w.after
		}
	}
	r.sides = [2]waitList{}
	atomic.AndUint32(&r.flags, ^uint32(recvWaits|sendWaits))
	r.mu.Unlock()
	for l := range uintptr(len(first)) {
		for at := first[l]; at != 0; {
			w := (*ringWait)(pointer(at))
			at = w.after
			w.Signal()
		}
	}
}

// seal says that an SPSC ring, which is closed, is at its end, or false if a
// value has come.
func (r *ring) seal() bool {
	k := sealing{r: uintptr(unsafe.Pointer(r))}
	onStack(sealFn, pointer(uintptr(unsafe.Pointer(&k))))
	return k.sealed
}

type sealing struct {
	r      uintptr
	sealed bool
}

func (k *sealing) do() {
	r := (*ring)(pointer(k.r))
	r.mu.Lock()
	if r.slots != 0 && r.flags&ringSealed == 0 {
		asm.Fence()
		if atomic.LoadUint64(&r.tail) != r.head {
			r.mu.Unlock()
			return
		}
		r.sealedAt = r.head
		atomic.OrUint32(&r.flags, ringSealed)
	}
	k.sealed = true
	r.mu.Unlock()
}

// sent is the end of an SPSC send, at position t, that has found a receiver
// waiting, or the ring closed.
//
//go:nosplit // a green thread's stack must not run out between a value and its wake-up
func (r *ring) sent(t uint64) error {
	k := sending{r: uintptr(unsafe.Pointer(r)), t: t}
	onStack(sentFn, pointer(uintptr(unsafe.Pointer(&k))))
	if k.late {
		return ErrRingClosed
	}
	return nil
}

type sending struct {
	r    uintptr
	t    uint64
	late bool
}

func (k *sending) do() {
	r := (*ring)(pointer(k.r))
	r.mu.Lock()
	if k.late = r.flags&ringSealed != 0 && k.t >= r.sealedAt; k.late {
		atomic.StoreUint64(&r.tail, k.t)
	}
	w := r.take(recvSide)
	r.mu.Unlock()
	if w != nil {
		w.Signal()
	}
}
