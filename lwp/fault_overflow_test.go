package lwp_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

//go:noinline
func frame1(n int) int {
	if n < 0 {
		return 0
	}
	var frame [1]byte
	frame[n%len(frame)] = byte(n)
	return frame1(n+1) + int(frame[(n+1)%len(frame)])
}

//go:noinline
func frame100(n int) int {
	if n < 0 {
		return 0
	}
	var frame [100]byte
	frame[n%len(frame)] = byte(n)
	return frame100(n+1) + int(frame[(n+1)%len(frame)])
}

//go:noinline
func frame1000(n int) int {
	if n < 0 {
		return 0
	}
	var frame [1000]byte
	frame[n%len(frame)] = byte(n)
	return frame1000(n+1) + int(frame[(n+1)%len(frame)])
}

//go:noinline
func frame4096(n int) int {
	if n < 0 {
		return 0
	}
	var frame [4096]byte
	frame[n%len(frame)] = byte(n)
	return frame4096(n+1) + int(frame[(n+1)%len(frame)])
}

//go:noinline
func frame8192(n int) int {
	if n < 0 {
		return 0
	}
	var frame [8192]byte
	frame[n%len(frame)] = byte(n)
	return frame8192(n+1) + int(frame[(n+1)%len(frame)])
}

//go:noinline
func frame32768(n int) int {
	if n < 0 {
		return 0
	}
	var frame [32768]byte
	frame[n%len(frame)] = byte(n)
	return frame32768(n+1) + int(frame[(n+1)%len(frame)])
}

//go:noinline
func frame122880(n int) int {
	if n < 0 {
		return 0
	}
	var frame [122880]byte
	frame[n%len(frame)] = byte(n)
	return frame122880(n+1) + int(frame[(n+1)%len(frame)])
}

// recursions never end, on frames of that many bytes.
var recursions = []struct {
	frame int
	do    func(*int)
}{
	{1, func(n *int) { *n = frame1(*n) }},
	{100, func(n *int) { *n = frame100(*n) }},
	{1000, func(n *int) { *n = frame1000(*n) }},
	{4096, func(n *int) { *n = frame4096(*n) }},
	{8192, func(n *int) { *n = frame8192(*n) }},
	{32768, func(n *int) { *n = frame32768(*n) }},
	{122880, func(n *int) { *n = frame122880(*n) }},
	{0, func(n *int) { *n = mutual{1}.call(*n) }},
	{0, func(n *int) { *n = closures(func(n int) int { return n + 1 }, *n) }},
}

type caller interface{ call(int) int }
type mutual struct{ n int }
type other struct{ m int }

//go:noinline
func (m mutual) call(n int) int { return pick(n).call(n+m.n) + 1 }

//go:noinline
func (o *other) call(n int) int { return pick(n).call(n+o.m) + 1 }

var others other

//go:noinline
func pick(n int) caller {
	if n%2 == 0 {
		return mutual{3}
	}
	return &others
}

//go:noinline
func closures(f func(int) int, n int) int {
	if n < 0 {
		return 0
	}
	return closures(func(m int) int { return f(n) + m }, n+1) + f(n)
}

// neighbour fills what it does not use of its stack, and looks at it later.
type neighbour struct {
	lo, hi uintptr
	ready  atomic.Bool
	stop   atomic.Bool
	wrong  uintptr // address of the first byte that has changed
}

const (
	faultPattern = 0x5a
	inUse        = 1400 // below the address of a local; what the loop's calls need
)

func faultStay(n *neighbour) {
	var here byte
	n.lo, n.hi = lwp.StackBounds()
	top := uintptr(unsafe.Pointer(&here)) - inUse
	if top > n.lo {
		own := unsafe.Slice((*byte)(at(n.lo)), top-n.lo)
		for i := range own {
			own[i] = faultPattern
		}
	}
	n.ready.Store(true)
	for !n.stop.Load() {
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	if top > n.lo {
		for i, b := range unsafe.Slice((*byte)(at(n.lo)), top-n.lo) {
			if b != faultPattern {
				n.wrong = n.lo + uintptr(i)
				return
			}
		}
	}
}

// settle starts a neighbour.
func settle(t *testing.T, attr lwp.Attr) (*neighbour, lwp.Thread) {
	t.Helper()
	n := new(neighbour)
	th, err := lwp.StartAttr(faultStay, n, attr)
	if err != nil {
		t.Fatal(err)
	}
	lwptest.Eventually(t, "a neighbour", n.ready.Load)
	return n, th
}

func (n *neighbour) leave(t *testing.T, th lwp.Thread) {
	t.Helper()
	n.stop.Store(true)
	if err := th.Join(); err != nil {
		t.Error("a neighbour: ", err)
	}
	if n.wrong != 0 {
		t.Errorf("a neighbour's stack [%#x, %#x) has changed at %#x", n.lo, n.hi, n.wrong)
	}
}

// Where the hook of a fault leaves what it is told.
var toldReason, toldSP atomic.Uintptr

func tell(f *lwp.Fault) {
	toldReason.Store(uintptr(f.Reason))
	toldSP.Store(f.SP)
}

func TestStackOverflowIsOneAndHarmsNobody(t *testing.T) {
	lwptest.SkipRace(t)
	defer lwp.SetStackCache(lwp.SetStackCache(0)) // fresh mappings lie beside each other
	adjacent := 0
	for _, size := range []int{2 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, guard := range []int{0, lwp.NoGuard} {
			for i, r := range recursions {
				if lwptest.Emulated() && i%3 != 0 {
					continue
				}
				t.Run(fmt.Sprintf("stack=%d/guard=%d/frame=%d-%d", size, guard, r.frame, i), func(t *testing.T) {
					attr := lwp.Attr{StackSize: size, GuardSize: guard}
					above, aboveThread := settle(t, attr)
					victim := attr
					victim.OnFault = tell
					gate := &gated{do: r.do}
					th, err := lwp.StartAttr(runGated, gate, victim)
					if err != nil {
						t.Fatal(err)
					}
					below, belowThread := settle(t, attr)
					gate.open.Store(true)
					f, ok := th.Join().(*lwp.Fault)
					if !ok || f.Reason != lwp.StackOverflow {
						t.Fatalf("joined with %v", f)
					}
					above.leave(t, aboveThread)
					below.leave(t, belowThread)
					if lwp.Reason(toldReason.Load()) != lwp.StackOverflow {
						t.Errorf("the hook was told %v", lwp.Reason(toldReason.Load()))
					}
					want := fmt.Sprintf("stack overflow on a stack of %d bytes in lwprt/lwp_test.", f.StackSize)
					if !strings.Contains(f.Error(), want) || !strings.Contains(f.Error(), "Attr.StackSize") {
						t.Errorf("%q does not say %q and Attr.StackSize", f, want)
					}
					if f.StackSize < size || f.StackSize > size+16<<10 {
						t.Errorf("StackSize is %d", f.StackSize)
					}
					if f.SP < gate.lo || f.SP >= gate.hi || toldSP.Load() != f.SP {
						t.Errorf("SP %#x outside of [%#x, %#x)", f.SP, gate.lo, gate.hi)
					}
					if near := uintptr(200 << 10); min(above.lo-gate.hi, gate.lo-above.hi, gate.lo-below.hi, below.lo-gate.hi) < near {
						adjacent++
					}
				})
			}
		}
	}
	if adjacent == 0 && !t.Failed() {
		t.Error("no stacks were beside each other")
	}
	alive(t)
}

type gated struct {
	do     func(*int)
	open   atomic.Bool
	lo, hi uintptr
	n      int
}

func runGated(g *gated) {
	g.lo, g.hi = lwp.StackBounds()
	for !g.open.Load() {
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	g.do(&g.n)
}
