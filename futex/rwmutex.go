package futex

import "sync/atomic"

// An RWMutex is held by any number of readers or by one writer. The zero
// RWMutex is free.
//
// The protocol is phase-fair. Readers and writers take turns where both want
// the lock: a writer waits for the readers that are in when it announces
// itself, never for later ones, and a reader waits for one writer, never for a
// second. So neither can starve; among themselves writers are as fair as Mutex.
//
// A writer first takes the mutex writer, so that there is one at a time, and
// announces itself by setting rwWriter in state. The same step tells it how
// many readers are in; it adds them to drain, from which every reader that
// leaves after the announcement takes one, and waits for 0. A reader counts
// itself in, and the same step tells it whether a writer is there, and in which
// phase. If one is, it waits until phase moves on. The writer ends by clearing
// rwWriter and turning the phase bit in one step, which makes readers of those
// that wait, moves phase on, wakes all who sleep there, and gives up writer.
//
//	state   bit 0      the current phase, as phase&1 will be when its writer leaves
//	        bits 1-29  readers: those inside, and those that wait
//	        bit 30     rwGuard: readers overflowed or went below 0; misuse
//	        bit 31     rwWriter: a writer is inside or waits for drain
//	phase   grows by one when a writer leaves that kept readers waiting
//	drain   readers the writer waits for; for a moment, as it announces itself, below 0
//
//	RLock    state+rwReader; in at once without rwWriter, else when phase has moved
//	RUnlock  state-rwReader; with rwWriter also drain-1, and at 0 wake the writer
//	Lock     state+rwWriter; drain+readers; in when drain is 0
//	Unlock   no readers: state-rwWriter, the phase stays
//	         readers:    state-rwWriter with the phase bit turned; phase+1; wake all
//
// The wake-up that a naive version loses: a reader that counts itself and then
// reads the phase in a second step can read the one after, when the writer has
// left in between; it waits for a turn that it has been given already, and the
// next writer waits for it to leave. Here the step that counts the reader says
// which phase it came in. One bit is enough to compare: phase cannot move on
// twice past a waiting reader, because the first move makes it one that the
// next writer waits for. That writer cannot announce itself before phase has moved
// either, since writer is given up last.
//
// A reader must not RLock again while it reads: a writer that comes in between
// waits for the first, and the second waits for the writer.
type RWMutex struct {
	_      noCopy
	writer Mutex
	state  uint32
	phase  uint32
	drain  uint32
}

const (
	rwPhase   = 1
	rwReader  = 2
	rwGuard   = 1 << 30
	rwWriter  = 1 << 31
	rwReaders = rwGuard - rwReader
)

// Share makes rw work between processes; see the package documentation.
func (rw *RWMutex) Share() {
	rw.writer.share.set(atomic.LoadUint32(&rw.state)|atomic.LoadUint32(&rw.writer.state) == 0)
}

// RLock takes the lock for reading. It panics if there are 2^29 readers.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Ordering: an Unlock synchronizes before the return of every later RLock and
// Lock, an RUnlock before the return of every later Lock.
func (rw *RWMutex) RLock() {
	if s := atomic.AddUint32(&rw.state, rwReader); s&(rwWriter|rwGuard) != 0 {
		rw.rlockSlow(s)
	}
}

func (rw *RWMutex) rlockSlow(s uint32) {
	if s&rwGuard != 0 {
		panic("futex: too many readers of an RWMutex")
	}
	for {
		phase := atomic.LoadUint32(&rw.phase)
		if phase&rwPhase != s&rwPhase {
			return
		}
		if !spinWhile(&rw.phase, phase) {
			sleep(rw.writer.share.scope(), &rw.phase, phase, MatchAny, Deadline{})
		}
	}
}

// TryRLock takes the lock for reading if no writer holds it or waits for it,
// and reports whether it did.
func (rw *RWMutex) TryRLock() bool {
	for {
		s := atomic.LoadUint32(&rw.state)
		if s&rwWriter != 0 {
			return false
		}
		if atomic.CompareAndSwapUint32(&rw.state, s, s+rwReader) {
			return true
		}
	}
}

// RUnlock undoes one RLock. It panics if nobody reads.
//
// Context: goroutine or thread, not only the one that called RLock; it never sleeps.
func (rw *RWMutex) RUnlock() {
	if s := atomic.AddUint32(&rw.state, ^uint32(rwReader-1)); s&(rwWriter|rwGuard) != 0 {
		rw.runlockSlow(s)
	}
}

func (rw *RWMutex) runlockSlow(s uint32) {
	if s&rwGuard != 0 {
		panic("futex: RUnlock of an RWMutex that nobody reads")
	}
	if atomic.AddUint32(&rw.drain, ^uint32(0)) == 0 {
		wake(rw.writer.share.scope(), &rw.drain, 1)
	}
}

// Lock takes the lock for writing.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Ordering: see RLock.
func (rw *RWMutex) Lock() {
	rw.writer.Lock()
	if s := atomic.AddUint32(&rw.state, rwWriter); s&rwReaders != 0 {
		rw.lockSlow(s & rwReaders / rwReader)
	}
}

func (rw *RWMutex) lockSlow(readers uint32) {
	for left := atomic.AddUint32(&rw.drain, readers); left != 0; left = atomic.LoadUint32(&rw.drain) {
		if !spinWhile(&rw.drain, left) {
			sleep(rw.writer.share.scope(), &rw.drain, left, MatchAny, Deadline{})
		}
	}
}

// TryLock takes the lock for writing if nobody holds it, and reports whether
// it did.
func (rw *RWMutex) TryLock() bool {
	if !rw.writer.TryLock() {
		return false
	}
	s := atomic.LoadUint32(&rw.state)
	if s&rwReaders == 0 && atomic.CompareAndSwapUint32(&rw.state, s, s|rwWriter) {
		return true
	}
	rw.writer.Unlock()
	return false
}

// Unlock undoes Lock. It panics if nobody holds the lock for writing.
//
// Context: goroutine or thread, not only the one that called Lock; it never sleeps.
func (rw *RWMutex) Unlock() {
	s := atomic.LoadUint32(&rw.state)
	if s&rwWriter == 0 {
		panic("futex: Unlock of an RWMutex that nobody writes")
	}
	if s&rwReaders != 0 || !atomic.CompareAndSwapUint32(&rw.state, s, s&^rwWriter) {
		rw.admit(s)
	}
	rw.writer.Unlock()
}

// admit ends the writer's phase and lets in the readers that wait.
func (rw *RWMutex) admit(s uint32) {
	// rwWriter is the sign bit, so that adding it again clears it; the phase
	// bit is the writer's own and turns by +1 or -1.
	atomic.AddUint32(&rw.state, rwWriter+1-2*(s&rwPhase))
	atomic.AddUint32(&rw.phase, 1)
	wake(rw.writer.share.scope(), &rw.phase, All)
}
