package lwp

import (
	"context"
	"errors"
	"math/bits"
	"reflect"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// Errors of rings.
var (
	ErrRingFull     = errors.New("lwp: the ring is full")
	ErrRingEmpty    = errors.New("lwp: the ring is empty")
	ErrRingClosed   = errors.New("lwp: the ring is closed")
	ErrRingCapacity = errors.New("lwp: the capacity of a ring is not between 1 and MaxRing, or its memory not to be had")
	ErrPointers     = errors.New("lwp: the values of a ring contain pointers, which the collector would not see there")
)

// MaxRing is the largest capacity of a Ring.
const MaxRing = 1 << 30

// A RingKind says who uses a Ring: one or many who send, one or many who receive.
// One means one at a time, with whatever else orders their calls.
type RingKind uint8

const (
	MPMC RingKind = iota // many and many
	SPSC                 // one and one: half the time
	MPSC                 // many who send, one who receives
)

// A Ring is a bounded queue, first in first out, off the Go heap, between
// goroutines, threads and green threads in any mixture:
//
//	r, err := lwp.NewRing[sample](1024, lwp.SPSC)
//	defer r.Free()
//	...
//	err = r.Send(s)      // on a thread
//	s, err := r.Recv()   // on a goroutine
//
// Each end can try, wait, or wait until a deadline; goroutines also for a
// context. A goroutine that waits sleeps on a futex, with a thread of Go's, but with
// a context in a channel operation, without. A green thread that waits lets
// others run, and waits for somebody outside: that is no deadlock of its scheduler.
//
// After Close what was sent can still be received.
//
// Values are copied in and out, and contain no pointers, which NewRing checks: the
// collector would not see them, and a thread could not store them.
//
// A Ring must not be copied. The zero Ring is closed.
//
// # Layout
//
// A cache line each, and one between any two, as the hardware fetches lines in
// pairs:
//
//	constant   slots, mask, ...         read by all
//	sender     tail, headSeen           written by who sends
//	receiver   head, tailSeen           written by who receives
//	waiters    flags, lock, lists       read at each operation, written by who waits
//
// The sender of an SPSC ring looks at head only when the ring is full as of its
// last look, headSeen, and the receiver the same: while neither is the faster, the
// index of the other costs a cache miss once a lap and not once a value. Slots
// are T alone for SPSC; else a sequence word comes before each.
type Ring[T any] struct{ ring }

// NewRing returns a ring for capacity values, which is rounded up to a power of
// two. It must be freed.
//
// Context: goroutine.
// Errors: ErrRingCapacity, ErrPointers, ErrAttr for no kind, ErrHosted.
func NewRing[T any](capacity int, kind RingKind) (*Ring[T], error) {
	switch {
	case asm.Current() != nil:
		return nil, ErrHosted
	case capacity < 1 || capacity > MaxRing:
		return nil, ErrRingCapacity
	case kind > MPSC:
		return nil, ErrAttr
	case hasPointers(reflect.TypeFor[T]()):
		return nil, ErrPointers
	}
	r := new(Ring[T])
	stride := unsafe.Sizeof(slot[T]{})
	if kind == SPSC {
		stride = unsafe.Sizeof(*(*T)(nil))
	}
	if err := r.open(capacity, kind, stride); err != nil {
		return nil, err
	}
	return r, nil
}

// A slot of a ring with many on an end. seq is 2n while it is free for lap n, 2n+1
// while it holds a value of that lap: who has the position writes or reads the
// value, then adds one.
type slot[T any] struct {
	seq uint64
	v   T
}

// ring is a Ring without its type.
type ring struct {
	_      noCopy
	slots  uintptr
	mask   uint64
	shift  uint8
	kind   RingKind
	fenced bool   // asm.Fence does not work here, or the race detector is to know: store with a fence
	window uint16 // for a test: how long it is from the last look to step 1
	naive  bool   // for a test: steps 2 and 3 are left out
	size   uintptr
	_      [128]byte

	tail     uint64 // position of the next value sent; with tailClosed, of none but for SPSC
	headSeen uint64
	sendCut  uint32 // see spin
	_        [108]byte

	head     uint64 // position of the next value received
	tailSeen uint64
	recvCut  uint32
	_        [108]byte

	flags    uint32
	mu       futex.Mutex // guards what follows, and changes of flags
	sides    [2]waitList
	sealedAt uint64 // with ringSealed: how many were received
	_        [64]byte
}

const tailClosed = 1 << 63

// Bits of ring.flags.
const (
	recvWaits  = 1 << recvSide
	sendWaits  = 1 << sendSide
	ringClosed = 1 << 2
	ringSealed = 1 << 3 // SPSC: the receiver has seen that nothing is left
)

const (
	recvSide = 0
	sendSide = 1
)

func (r *ring) open(capacity int, kind RingKind, stride uintptr) error {
	n := uint64(1) << bits.Len64(uint64(capacity-1))
	hi, bytes := bits.Mul64(n, uint64(max(stride, 1)))
	if hi != 0 || bytes > 1<<46 {
		return ErrRingCapacity
	}
	addr, errno := mmap(uintptr(bytes), unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if errno != 0 {
		return ErrRingCapacity
	}
	r.slots, r.size, r.mask, r.shift, r.kind = addr, uintptr(bytes), n-1, uint8(bits.Len64(n)-1), kind
	r.fenced = instrumented || !fences()
	return nil
}

// Free closes the ring and gives its memory back. Nobody uses it meanwhile, or
// waits there.
//
// Context: goroutine or thread.
// Errors: ErrRingClosed on a second call.
func (r *Ring[T]) Free() error {
	if r.slots == 0 {
		return ErrRingClosed
	}
	r.Close()
	memoryCall(unix.SYS_MUNMAP, r.slots, r.size, 0, 0)
	r.slots = 0
	return nil
}

// Cap returns how many values the ring has room for.
func (r *Ring[T]) Cap() int {
	if r.slots == 0 {
		return 0
	}
	return int(r.mask) + 1
}

// Len returns how many values are in the ring, or were a moment ago.
func (r *Ring[T]) Len() int {
	h := atomic.LoadUint64(&r.head)
	n := atomic.LoadUint64(&r.tail)&^tailClosed - h
	return int(min(n, r.mask+1))
}

// TrySend sends v if there is room.
//
// Context: goroutine, thread, green thread.
// Errors: ErrRingFull, ErrRingClosed.
// Ordering: what happens before a value is sent happens before it is received.
func (r *Ring[T]) TrySend(v T) error {
	if r.kind != SPSC {
		return r.trySendMany(&v)
	}
	t := r.tail
	if t-r.headSeen > r.mask {
		if r.headSeen = atomic.LoadUint64(&r.head); t-r.headSeen > r.mask {
			return r.unsent()
		}
	}
	if atomic.LoadUint32(&r.flags)&ringClosed != 0 || r.slots == 0 {
		return ErrRingClosed
	}
	*(*T)(pointer(r.slots + uintptr(t&r.mask)*unsafe.Sizeof(v))) = v
	r.publish(&r.tail, t+1)
	if atomic.LoadUint32(&r.flags)&^sendWaits != 0 {
		return r.sent(t)
	}
	return nil
}

// unsent says why nothing can be sent.
func (r *ring) unsent() error {
	if atomic.LoadUint32(&r.flags)&ringClosed != 0 || r.slots == 0 {
		return ErrRingClosed
	}
	return ErrRingFull
}

// publish stores a position for the other side to see, after the value.
//
//go:nosplit // a stack must not run out between the claim of a position and this
func (r *ring) publish(at *uint64, v uint64) {
	if r.fenced {
		atomic.StoreUint64(at, v)
	} else {
		asm.StoreRelease64(at, v)
	}
}

// trySendMany is TrySend where many send. Between the claim of a position and
// the value nothing is called that could end the caller.
func (r *Ring[T]) trySendMany(v *T) error {
	for spins := 0; ; spins++ {
		t := atomic.LoadUint64(&r.tail)
		if t&tailClosed != 0 || r.slots == 0 {
			return ErrRingClosed
		}
		s := (*slot[T])(pointer(r.slots + uintptr(t&r.mask)*unsafe.Sizeof(slot[T]{})))
		lap := t >> r.shift * 2
		switch seq := atomic.LoadUint64(&s.seq); {
		case seq == lap:
			if atomic.CompareAndSwapUint64(&r.tail, t, t+1) {
				s.v = *v
				r.publish(&s.seq, lap+1)
				if atomic.LoadUint32(&r.flags)&recvWaits != 0 {
					r.wake(recvSide)
				}
				return nil
			}
		case int64(seq-lap) < 0:
			// A value of the last lap. If it is about to be received, there is room.
			if h := atomic.LoadUint64(&r.head); t-h > r.mask && atomic.LoadUint64(&r.tail) == t {
				return ErrRingFull
			}
			relax(spins)
		}
	}
}

// TryRecv receives a value if there is one.
//
// Context: as TrySend.
// Errors: ErrRingEmpty; ErrRingClosed if the ring is closed and nothing is left.
func (r *Ring[T]) TryRecv() (v T, err error) {
	if r.kind != SPSC {
		err = r.tryRecvMany(&v)
		return v, err
	}
	h := r.head
	if h == r.tailSeen {
		r.tailSeen = atomic.LoadUint64(&r.tail)
		switch f := atomic.LoadUint32(&r.flags); {
		case f&ringSealed != 0 || r.slots == 0:
			r.tailSeen = h
			return v, ErrRingClosed
		case h != r.tailSeen:
		case f&ringClosed == 0:
			return v, ErrRingEmpty
		case r.seal():
			return v, ErrRingClosed
		default:
			r.tailSeen = atomic.LoadUint64(&r.tail)
		}
	} else if r.slots == 0 {
		return v, ErrRingClosed
	}
	v = *(*T)(pointer(r.slots + uintptr(h&r.mask)*unsafe.Sizeof(v)))
	r.publish(&r.head, h+1)
	if atomic.LoadUint32(&r.flags)&sendWaits != 0 {
		r.wake(sendSide)
	}
	return v, nil
}

func (r *Ring[T]) tryRecvMany(v *T) error {
	for spins := 0; ; spins++ {
		h := atomic.LoadUint64(&r.head)
		if r.slots == 0 {
			return ErrRingClosed
		}
		s := (*slot[T])(pointer(r.slots + uintptr(h&r.mask)*unsafe.Sizeof(slot[T]{})))
		lap := h >> r.shift * 2
		switch seq := atomic.LoadUint64(&s.seq); {
		case seq == lap+1:
			if r.kind == MPSC {
				r.publish(&r.head, h+1)
			} else if !atomic.CompareAndSwapUint64(&r.head, h, h+1) {
				continue
			}
			*v = s.v
			r.publish(&s.seq, lap+2)
			if atomic.LoadUint32(&r.flags)&sendWaits != 0 {
				r.wake(sendSide)
			}
			return nil
		case int64(seq-lap) <= 0:
			// Nothing there. If a sender has the position, it is about to be.
			t := atomic.LoadUint64(&r.tail)
			if t&^tailClosed == h {
				if t&tailClosed != 0 {
					return ErrRingClosed
				}
				return ErrRingEmpty
			}
			if atomic.LoadUint64(&r.head) == h {
				relax(spins)
			}
		}
	}
}

// relax passes the time while another is between two instructions.
func relax(spins int) {
	if spins < 100 {
		asm.Relax()
		return
	}
	Yield()
}

// Send sends v and waits until there is room.
//
// Context: goroutine, thread; green thread with a stack of 4 KiB, or 2 KiB and little else
// on it.
// Errors: ErrRingClosed, also if the ring is closed meanwhile.
func (r *Ring[T]) Send(v T) error {
	if err := r.TrySend(v); err != ErrRingFull {
		return err
	}
	return r.send(&v, futex.Never)
}

// SendFor is Send for at most d.
//
// Errors: also ErrDeadline.
func (r *Ring[T]) SendFor(v T, d time.Duration) error { return r.SendUntil(v, futex.After(d)) }

// SendUntil is Send until d at the latest.
//
// Errors: also ErrDeadline.
func (r *Ring[T]) SendUntil(v T, d futex.Deadline) error {
	if err := r.TrySend(v); err != ErrRingFull {
		return err
	}
	return r.send(&v, d)
}

// SendContext is Send that gives up when ctx is done.
//
// Context: goroutine, which holds no thread of Go's while it waits.
// Errors: also ctx.Err(); ErrHosted on a thread.
func (r *Ring[T]) SendContext(ctx context.Context, v T) error {
	if asm.Current() != nil {
		return ErrHosted
	}
	err := ctx.Err()
	for err == nil {
		if err := r.TrySend(v); err != ErrRingFull {
			return err
		}
		if err = ctx.Err(); err == nil { // after a try: the wake-up was meant for one
			r.waitContext(ctx, sendSide)
		}
	}
	return err
}

func (r *Ring[T]) send(v *T, d futex.Deadline) error {
	for {
		if r.spin(sendSide) {
			if err := r.TrySend(*v); err != ErrRingFull {
				return err
			}
		}
		late := !r.wait(sendSide, d)
		if err := r.TrySend(*v); err != ErrRingFull {
			return err
		}
		if late {
			return ErrDeadline
		}
	}
}

// Recv receives a value and waits until there is one.
//
// Context: as Send.
// Errors: ErrRingClosed if the ring is closed and nothing is left.
func (r *Ring[T]) Recv() (T, error) {
	v, err := r.TryRecv()
	if err == ErrRingEmpty {
		err = r.recv(&v, futex.Never)
	}
	return v, err
}

// RecvFor is Recv for at most d.
//
// Errors: also ErrDeadline.
func (r *Ring[T]) RecvFor(d time.Duration) (T, error) { return r.RecvUntil(futex.After(d)) }

// RecvUntil is Recv until d at the latest.
//
// Errors: also ErrDeadline.
func (r *Ring[T]) RecvUntil(d futex.Deadline) (T, error) {
	v, err := r.TryRecv()
	if err == ErrRingEmpty {
		err = r.recv(&v, d)
	}
	return v, err
}

// RecvContext is Recv that gives up when ctx is done.
//
// Context: goroutine, which holds no thread of Go's while it waits.
// Errors: also ctx.Err(); ErrHosted on a thread.
func (r *Ring[T]) RecvContext(ctx context.Context) (v T, err error) {
	if asm.Current() != nil {
		return v, ErrHosted
	}
	err = ctx.Err()
	for err == nil {
		if v, err = r.TryRecv(); err != ErrRingEmpty {
			return v, err
		}
		if err = ctx.Err(); err == nil { // as in SendContext
			r.waitContext(ctx, recvSide)
		}
	}
	return v, err
}

func (r *Ring[T]) recv(v *T, d futex.Deadline) (err error) {
	for {
		if r.spin(recvSide) {
			if *v, err = r.TryRecv(); err != ErrRingEmpty {
				return err
			}
		}
		late := !r.wait(recvSide, d)
		if *v, err = r.TryRecv(); err != ErrRingEmpty {
			return err
		}
		if late {
			return ErrDeadline
		}
	}
}
