package sched

import (
	"time"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// A Limit bounds a wait: what comes first of those that are set does. The zero
// Limit does not bound it.
type Limit struct {
	Timeout  time.Duration  // no longer than that, from when the wait begins, if not 0: ErrTimeout
	Deadline futex.Deadline // no later than that: ErrTimeout
	Token    *Token         // no longer than until its Cancel: ErrCanceled
}

// For returns the Limit that ends each wait after d. The clock is read when a
// wait really begins. Nothing waits if d is not positive.
func For(d time.Duration) Limit {
	if d <= 0 {
		d = -1
	}
	return Limit{Timeout: d}
}

// Until returns the Limit that is t's Cancel.
func Until(t *Token) Limit { return Limit{Token: t} }

// A bound is a Limit as a wait uses it. The zero bound is none.
type bound struct {
	at    int64 // on the monotonic clock, 0 for never
	token *Token
}

// bound returns l, which can be nil, as a bound, or the error if it is over
// already, which ends a wait that has not begun. A deadline on the real-time
// clock becomes the instant of the monotonic clock that it is now.
func (l *Limit) bound() (b bound, err error) {
	if l == nil {
		return b, nil
	}
	if l.Token != nil {
		if l.Token.Canceled() {
			return b, ErrCanceled
		}
		if asm.Current() == nil {
			checkPlace(unsafe.Pointer(l.Token))
		}
		b.token = l.Token
	}
	if l.Timeout != 0 {
		if l.Timeout < 0 {
			return b, ErrTimeout
		}
		me, _ := here()
		b.at = later(clockNow(me), int64(l.Timeout))
	}
	if l.Deadline != futex.Never {
		if l.Deadline.Passed() {
			return b, ErrTimeout
		}
		if at := max(l.Deadline.Monotonic(), 1); b.at == 0 || at < b.at {
			b.at = at
		}
	}
	return b, nil
}

//go:nosplit // as node.of
func (b bound) none() bool { return b.at == 0 && b.token == nil }
