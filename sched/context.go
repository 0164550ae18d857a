package sched

import (
	"context"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// JoinContext is Join that gives up when ctx is done.
//
// Context: goroutine, which holds no thread of Go's while it waits.
// Errors: as Join's; ctx.Err(), after which the fiber can be joined again;
// ErrHosted elsewhere.
func (h Fiber) JoinContext(ctx context.Context) error {
	if asm.Current() != nil {
		return ErrHosted
	}
	g, err := lwp.NewGate()
	if err != nil {
		return err
	}
	defer g.Free()
	fault, err := h.awaitOutside(patience{futex.Never, ctx, &g})
	if err == ErrTimeout {
		return ctx.Err()
	}
	return joinedFault(fault, err)
}

// JoinChan is Join for a select: the channel gets what Join returns, once. Until
// then one goroutine waits, which holds no thread of Go's.
//
// Context: goroutine; elsewhere the result is nil.
// Errors: on the channel, as Join's.
func (h Fiber) JoinChan() <-chan error {
	if asm.Current() != nil {
		return nil
	}
	c := make(chan error, 1)
	go func() { c <- h.JoinContext(context.Background()) }()
	return c
}

// WaitContext is Wait that gives up when ctx is done.
//
// Context: goroutine, which holds no thread of Go's while it waits.
// Errors: as Wait's; ctx.Err().
func (s *Scheduler) WaitContext(ctx context.Context) error {
	if asm.Current() != nil {
		return ErrHosted
	}
	g, err := lwp.NewGate()
	if err != nil {
		return err
	}
	defer g.Free()
	err = s.wait(patience{futex.Never, ctx, &g})
	if err == ErrTimeout {
		return ctx.Err()
	}
	return err
}
