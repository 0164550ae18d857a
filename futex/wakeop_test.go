package futex_test

import (
	"math"
	"sync/atomic"
	"syscall"
	"testing"

	"lwprt/futex"
)

// TestWakeOpChangesTheWord fails where an operation, its argument's sign, or a
// comparison is not the one that was asked for.
func TestWakeOpChangesTheWord(t *testing.T) {
	neg := func(v int32) uint32 { return uint32(v) }
	for _, k := range []struct {
		op       futex.WordOp
		old, new uint32
		wakes    bool // on the second word
	}{
		{futex.WordOp{Op: futex.OpSet, Arg: 5}, 0, 5, true},
		{futex.WordOp{Op: futex.OpSet, Arg: -1, CmpArg: 1}, 0, math.MaxUint32, false},
		{futex.WordOp{Op: futex.OpAdd, Arg: 2047, Cmp: futex.CmpNE, CmpArg: 7}, 7, 2054, false},
		{futex.WordOp{Op: futex.OpAdd, Arg: -2048, Cmp: futex.CmpNE}, 7, neg(7 - 2048), true},
		{futex.WordOp{Op: futex.OpOr, Arg: 31, Shift: true, Cmp: futex.CmpLT, CmpArg: -3}, neg(-4), neg(-4), true},
		{futex.WordOp{Op: futex.OpOr, Arg: 3, Shift: true, Cmp: futex.CmpLT, CmpArg: 1}, 1, 9, false},
		{futex.WordOp{Op: futex.OpAndNot, Arg: 6, Cmp: futex.CmpLE, CmpArg: 15}, 15, 9, true},
		{futex.WordOp{Op: futex.OpAndNot, Arg: 0, Shift: true, Cmp: futex.CmpLE, CmpArg: -2048}, neg(-1), neg(-2), false},
		{futex.WordOp{Op: futex.OpXor, Arg: 5, Cmp: futex.CmpGT, CmpArg: 2046}, 2047, 2042, true},
		{futex.WordOp{Op: futex.OpXor, Arg: -1, Cmp: futex.CmpGT, CmpArg: 0}, neg(-1), 0, false},
		{futex.WordOp{Op: futex.OpSet, Arg: 1, Cmp: futex.CmpGE, CmpArg: 3}, 3, 1, true},
		{futex.WordOp{Op: futex.OpSet, Arg: 1, Cmp: futex.CmpGE, CmpArg: 3}, 2, 1, false},
	} {
		for _, s := range scopes {
			x, y := new(uint32), new(uint32)
			atomic.StoreUint32(y, k.old)
			c := newCrew(t)
			for range 3 {
				c.start(func() { s.Wait(x, 0) })
				c.start(func() { s.Wait(y, k.old) })
			}
			count := func(p *uint32) int { n, _ := s.Requeue(p, p, 0, futex.All); return n }
			eventually(t, "waiters", func() bool { return count(x) == 3 && count(y) == 3 })
			want := 2
			if k.wakes {
				want = 3
			}
			n, err := s.WakeOp(x, y, 2, 1, k.op)
			if n != want || err != nil || *y != k.new {
				t.Errorf("%+v: %#x became %#x, want %#x; woke %d, want %d; %v", k.op, k.old, *y, k.new, n, want, err)
			}
			if left := count(x) + count(y); left != 6-want {
				t.Errorf("%+v: %d sleep on, want %d", k.op, left, 6-want)
			}
			s.Wake(x, futex.All)
			s.Wake(y, futex.All)
		}
	}
}

func TestWakeOpRefusesWhatItCannotSay(t *testing.T) {
	x, y := new(uint32), new(uint32)
	for _, op := range []futex.WordOp{
		{Arg: 2048}, {Arg: -2049}, {CmpArg: 2048}, {CmpArg: -2049}, {Op: futex.OpXor + 1}, {Cmp: futex.CmpGE + 1},
		{Arg: 32, Shift: true}, {Arg: -1, Shift: true},
	} {
		_, err := futex.Private.WakeOp(x, y, 1, 1, op)
		refused(t, "op", err, syscall.EINVAL)
	}
	for _, n := range [][2]int{{0, 1}, {1, 0}, {-1, 1}} {
		_, err := futex.Private.WakeOp(x, y, n[0], n[1], futex.WordOp{})
		refused(t, "count", err, syscall.EINVAL)
	}
	_, err := futex.Private.WakeOp(x, unmapped(t), 1, 1, futex.WordOp{})
	refused(t, "unmapped", err, syscall.EFAULT)
	if *y != 0 {
		t.Error("a refused operation has changed the word")
	}
}
