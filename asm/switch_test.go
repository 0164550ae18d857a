//go:build linux && (amd64 || arm64)

package asm

import (
	"sync/atomic"
	"testing"
	"unsafe"
)

// A lab is two contexts beside those of the threads that run them. It lies in
// a package variable, as a thread's memory must.
type lab struct {
	thread [2]Context
	result [16]byte // what SwitchReturn finds below c[0]
	c      [2]Context
	stack  [2][16 << 10]byte
	word   uint64
	free   uint32
	left   uint32
	next   *Context // where to go on when one ends

	steps  [32]byte
	n      int
	errs   int
	g      [2]uintptr
	on     uintptr // an address in the frame of what CallOn ran
	guard  uintptr
	frames int
}

var bench lab

func (l *lab) note(c byte) {
	if l.n < len(l.steps) {
		l.steps[l.n] = c
		l.n++
	}
}

func (l *lab) expect(ok bool) {
	if !ok {
		l.errs++
	}
}

// lay makes context i ready to call fn.
func (l *lab) lay(i int, fn func(*lab)) {
	hi := (uintptr(unsafe.Pointer(&l.stack[i])) + unsafe.Sizeof(l.stack[i])) &^ 15
	l.c[i].Init(hi, *(*uintptr)(unsafe.Pointer(&fn)), uintptr(unsafe.Pointer(l)))
	l.c[i].Guard = uintptr(unsafe.Pointer(&l.stack[i])) + 928
}

func (l *lab) hi(i int) uintptr {
	return (uintptr(unsafe.Pointer(&l.stack[i])) + unsafe.Sizeof(l.stack[i])) &^ 15
}

// within says whether addr is on the stack of context i.
func (l *lab) within(i int, addr uintptr) bool {
	lo := uintptr(unsafe.Pointer(&l.stack[i]))
	return lo <= addr && addr < lo+unsafe.Sizeof(l.stack[i])
}

var labEnded = func(worker uintptr) (*Context, *uint32) {
	if worker != Worker() {
		bench.errs++
	}
	bench.note('e')
	return bench.next, &bench.left
}

// onLab runs body on a thread, with its own context in thread[0].
func onLab(t *testing.T, body func(*block)) *lab {
	t.Helper()
	skipRace(t)
	bench = lab{}
	SetEnded(&labEnded)
	b := newBlock(t, body)
	b.run(t)
	if bench.errs != 0 {
		t.Errorf("%d expectations do not hold, after %q", bench.errs, bench.steps[:bench.n])
	}
	return &bench
}

func (l *lab) steady(t *testing.T, want string) {
	t.Helper()
	if got := string(l.steps[:l.n]); got != want {
		t.Errorf("the steps were %q, want %q", got, want)
	}
}

// work holds what a switch must keep, in registers and on the stack.
//
//go:noinline
func (l *lab) work(from, to *Context, seed int) {
	a, b, f, s := seed, seed*3, float64(seed)/7, "text"
	for i := range 50 {
		l.free = 1
		Switch(from, to, &l.free)
		l.expect(l.free == 0)
		a, b, f = a+i, b^i, f*1.5
	}
	wantA, wantB, wantF := seed, seed*3, float64(seed)/7
	for i := range 50 {
		wantA, wantB, wantF = wantA+i, wantB^i, wantF*1.5
	}
	l.expect(a == wantA && b == wantB && f == wantF && s == "text")
}

func TestSwitchKeepsWhatACallerNeeds(t *testing.T) {
	l := onLab(t, func(b *block) {
		l := &bench
		l.thread[0].Guard = b.G.StackGuard0
		l.next = &l.thread[0]
		l.lay(0, func(l *lab) {
			var here int
			l.expect(l.within(0, uintptr(unsafe.Pointer(&here))) && Current().G.StackGuard0 == l.c[0].Guard)
			fp := *(*uintptr)(codeAt(FramePointer()))
			for ; fp != 0 && l.frames < 10; l.frames++ {
				fp = *(*uintptr)(codeAt(fp))
			}
			l.note('b')
			l.work(&l.c[0], &l.thread[0], 11)
			l.note('d')
		})
		l.expect(l.c[0].Fresh())
		l.note('a')
		l.work(&l.thread[0], &l.c[0], 5)
		l.expect(!l.c[0].Fresh() && b.G.StackGuard0 == l.thread[0].Guard)
		l.note('c')
		l.left = 1
		Switch(&l.thread[0], &l.c[0], &l.free) // to its end
		l.expect(l.left == 0)
		l.note('f')
	})
	l.steady(t, "abcdef")
	if l.frames >= 10 {
		t.Error("a walk of frame pointers does not end at the first frame")
	}
}

// TestSwitchIf: one that comes back from its own SwitchIf gets true, whichever
// way it was switched to, also by the end of another.
func TestSwitchIf(t *testing.T) {
	l := onLab(t, func(b *block) {
		l := &bench
		l.thread[0].Guard = b.G.StackGuard0
		l.lay(0, func(l *lab) {
			l.word = 5
			l.expect(!SwitchIf(&l.c[0], &l.thread[0], &l.word, 4, 6) && l.word == 5)
			l.expect(SwitchIf(&l.c[0], &l.thread[0], &l.word, 5, 6)) // back by Switch
			l.note('b')
			l.word = 7
			l.expect(SwitchIf(&l.c[0], &l.thread[0], &l.word, 7, 8)) // back by SwitchIf
			l.note('d')
			l.word = 9
			l.expect(SwitchIf(&l.c[0], &l.c[1], &l.word, 9, 10)) // back by an end
			l.note('g')
			l.next = &l.thread[0]
		})
		l.lay(1, func(l *lab) {
			l.expect(l.word == 10)
			l.note('f')
			l.next = &l.c[0]
		})
		Switch(&l.thread[0], &l.c[0], &l.free)
		l.expect(l.word == 6)
		l.note('a')
		Switch(&l.thread[0], &l.c[0], &l.free)
		l.expect(l.word == 8)
		l.note('c')
		l.word = 1
		l.expect(SwitchIf(&l.thread[0], &l.c[0], &l.word, 1, 2))
		l.note('h')
	})
	l.steady(t, "abcdfegeh")
}

// waits holds what its caller must find again, and may be gone when it returns.
//
//go:noinline
func (l *lab) waits(to *Context, seed int) bool {
	var room [8]int
	room[seed&7] = seed
	l.note(byte('0' + room[seed&7]))
	return SwitchReturn(&l.c[0], to, &l.free)
}

//go:noinline
func (l *lab) asks(to *Context, seed int, want bool) {
	a, f, s := seed*3, float64(seed)/7, "text"
	l.result[len(l.result)-ResultAt] = 2 // neither
	l.free = 1
	got := l.waits(to, seed)
	l.expect(got == want && l.free == 0 && a == seed*3 && f == float64(seed)/7 && s == "text" && Current().G.StackGuard0 == l.c[0].Guard)
}

// TestSwitchReturn: what waits in SwitchReturn is back in the caller's caller with
// the byte below its context, whichever way it is switched to.
func TestSwitchReturn(t *testing.T) {
	result := func(l *lab, ok byte) { l.result[len(l.result)-ResultAt] = ok }
	l := onLab(t, func(b *block) {
		l := &bench
		main := &l.thread[0]
		main.Guard = b.G.StackGuard0
		l.next = main
		l.lay(0, func(l *lab) {
			l.asks(&l.thread[0], 1, true)
			l.asks(&l.thread[0], 2, false)
			l.asks(&l.thread[0], 3, true)
			l.asks(&l.c[1], 4, true) // to one that is fresh
			l.asks(&l.thread[0], 5, false)
			n, err := Return(6, nil) // which ends this function, if it is inlined
			l.expect(n == 6 && err == nil)
		})
		l.lay(1, func(l *lab) {
			l.note('f')
			l.next = &l.c[0] // by an end
			l.result[len(l.result)-ResultAt] = 1
		})
		Switch(main, &l.c[0], &l.left)
		l.expect(!l.c[0].Fresh() && l.within(0, l.c[0].Top()))
		result(l, 1)
		Switch(main, &l.c[0], &l.left)
		result(l, 0)
		l.word = 1
		l.expect(SwitchIf(main, &l.c[0], &l.word, 1, 2))
		result(l, 1)
		SwitchJump(main, &l.c[0], &l.left)
		l.next = main
		result(l, 0)
		SwitchJump(main, &l.c[0], &l.left) // back by the end of c[0]
	})
	l.steady(t, "1234fe5e")
}

// TestEndsAreChained: what ends is followed by what was never run, and by Leave.
func TestEndsAreChained(t *testing.T) {
	l := onLab(t, func(b *block) {
		l := &bench
		l.thread[0].Guard = b.G.StackGuard0
		l.lay(0, func(l *lab) {
			l.note('a')
			l.next = &l.c[1]
		})
		l.lay(1, func(l *lab) {
			l.note('b')
			l.next = &l.thread[0]
			leaveFrom(l, 5)
		})
		Switch(&l.thread[0], &l.c[0], &l.free)
		l.note('c')
	})
	l.steady(t, "aebec")
}

//go:noinline
func leaveFrom(l *lab, depth int) {
	if depth > 0 {
		leaveFrom(l, depth-1)
	} else {
		Leave(l.hi(1))
	}
	l.note('!')
}

var labOn = func(p unsafe.Pointer) {
	var here int
	l := (*lab)(p)
	l.on, l.guard = uintptr(unsafe.Pointer(&here)), Current().G.StackGuard0
}

func TestCallOnBorrowsAStack(t *testing.T) {
	l := onLab(t, func(b *block) {
		l := &bench
		l.thread[0].Guard = b.G.StackGuard0
		l.next = &l.thread[0]
		l.lay(0, func(l *lab) {
			before := Current().G.StackGuard0
			CallOn(&l.thread[0], labOn, unsafe.Pointer(l))
			l.expect(Current().G.StackGuard0 == before && l.guard == l.thread[0].Guard)
			l.expect(l.on < l.thread[0].SP && l.on > l.thread[0].SP-4096)
			l.note('a')
		})
		Switch(&l.thread[0], &l.c[0], &l.free)
		l.note('b')
	})
	l.steady(t, "aeb")
}

// TestContextsMoveBetweenThreads: one thread saves, another goes on, with its
// own g; the release of the first is what tells the second.
func TestContextsMoveBetweenThreads(t *testing.T) {
	skipRace(t)
	bench = lab{free: 1}
	SetEnded(&labEnded)
	first := newBlock(t, func(b *block) {
		l := &bench
		l.thread[0].Guard = b.G.StackGuard0
		l.lay(0, func(l *lab) {
			l.g[0] = Getg()
			Switch(&l.c[0], &l.thread[0], &l.free)
			l.g[1] = Getg()
			l.note('b')
			l.next = &l.thread[1]
		})
		Switch(&l.thread[0], &l.c[0], &l.left)
	})
	second := newBlock(t, func(b *block) {
		l := &bench
		l.thread[1].Guard = b.G.StackGuard0
		for atomic.LoadUint32(&l.free) != 0 {
			Relax()
		}
		Switch(&l.thread[1], &l.c[0], &l.left)
		l.note('c')
	})
	second.start(t)
	first.start(t)
	first.join(t)
	second.join(t)
	bench.steady(t, "bec")
	if bench.g[0] != uintptr(unsafe.Pointer(&first.G)) && slotNeeded || bench.g[0] == bench.g[1] {
		t.Errorf("g was %#x, then %#x", bench.g[0], bench.g[1])
	}
}
